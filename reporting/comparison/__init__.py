"""What runs say together: groups, differences and their significance, baselines, targets, caveats.

Plots, views and the command may import it. It imports runs and statistics, and shows nothing.
"""
