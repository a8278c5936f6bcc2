"""Spans encoded as tags: schemes, legal transitions, conversion between schemes, and kinds of errors.

Any package of `tasks` may import it. It imports none of them.
"""
