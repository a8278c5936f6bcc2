"""Files of pretrained vectors (text, word2vec, fastText), and looking words up in them.

Only `runner.embeddings` may import it. It imports only `runner.common`.
"""
