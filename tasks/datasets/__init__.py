"""Readers of corpora: files, published data sets and the Hugging Face Hub. Each returns one Arrow table per split.

Configs name the classes of this package; `tasks.predictions` may import it. It imports text formats and spans.
"""
