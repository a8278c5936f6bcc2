"""Spans encoded as tags: schemes and their detection, legal transitions, conversion, and kinds of errors.

Any package of `tasks` may import it. It imports none of them.
"""
