"""Spans encoded as tags: schemes, working them out, legal transitions, conversion, and kinds of errors.

Any package of `tasks` may import it. It imports none of them.
"""
