"""Readers of corpora: files, published data sets and the Hugging Face hub, each to one Arrow table a split.

Configs name what is in it; `tasks.predictions` may import it. It imports formats of text and spans.
"""
