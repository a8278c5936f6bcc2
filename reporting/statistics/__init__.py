"""Means, ratios and their intervals, and the bootstrap.

Every package of `reporting` may import it. It imports only the standard library, numpy, scipy and the quantile of
`runner.common.intervals`.
"""
