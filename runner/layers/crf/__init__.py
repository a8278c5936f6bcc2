"""Conditional random fields: the layer, the chain's scores, decoding, and likelihoods by two ways of adding up.

Heads and `tasks.spans` may import it. It imports tensors of rows and nothing above them.
"""
