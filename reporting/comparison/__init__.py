"""Comparison of runs: groups, differences and their significance, baselines, target quality, caveats.

Plots, views and the command may import it. It imports `runs` and `statistics`, and prints or draws nothing.
"""
