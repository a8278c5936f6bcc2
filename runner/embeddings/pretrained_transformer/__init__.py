"""Pretrained transformers as an embedding: their files, pieces of words, attention within rows, windows of long rows.

It needs the extra `pretrained` (transformers), which is imported only when such an embedding is built.
"""
