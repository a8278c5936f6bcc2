"""Plots of comparisons and of single runs; configs name the classes that draw those of a run or a search.

Views may import it. It imports `comparison` and the packages below it.
"""
