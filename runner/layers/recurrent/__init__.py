"""Recurrent layers: cells written out, unrolled over time, and run by fused kernels over rows of different lengths.

Embeddings, encoders and the inspection of models may import it. It imports `runner.layers`.
"""
