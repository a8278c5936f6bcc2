"""Layers shared by encoders, embeddings and heads. Each gives equal results for packed, padded and single rows.

Embeddings, encoders, heads and the model may import it. It imports `runner.ragged` and nothing above it.
"""
