"""Layers that more than one encoder, embedding or head uses; each says the same packed, padded and one row at a time.

Embeddings, encoders, heads and the model may import it. It imports tensors of rows and nothing above them.
"""
