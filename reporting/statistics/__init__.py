"""Means, ratios and their intervals, and the bootstrap.

Any package of `reporting` may import it. It imports nothing of ours.
"""
