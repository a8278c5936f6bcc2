"""Conditional random fields: the layer, chain scores, decoding, and likelihoods in the probability and log domains.

Heads and `tasks.spans` may import it. It imports `runner.ragged` and nothing above it.
"""
