"""Embeddings: ids of a token's features -> one vector a token.

Training, evaluation and experiments may import it. It imports layers and vocabularies, no config and no batches.
"""
