"""Predictions of speed and memory before training, and the choice of a batching strategy based on them.

`runner.experiment` and commands may import it. It imports training and all below.
"""
