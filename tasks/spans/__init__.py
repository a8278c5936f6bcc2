"""Spans of tags: schemes, what is allowed, conversion, and kinds of mistakes.

Any package of `tasks` may import it. It imports none of them.
"""
