"""Readers of pretrained vector files (text, word2vec, fastText), which look up the vectors of given words.

Only `runner.embeddings` may import it. It imports `runner.common` and `runner.text`.
"""
