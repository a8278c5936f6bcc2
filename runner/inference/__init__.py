"""Finished runs: loading them, and predicting with them.

Experiments, commands and tasks may import it. It imports training and all below, and the packages within it not.
"""
