"""Finished runs: loading them, and predicting with them.

Experiments, commands and tasks may import it. It imports training and all below, but none of its own subpackages.
"""
