"""Embeddings: ids of a token's features -> one vector per token.

Training, evaluation and experiments may import it. It imports layers and vocabularies, but no config and no batches.
"""
