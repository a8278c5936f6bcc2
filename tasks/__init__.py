"""Tasks: classification, tagging and language modelling, each with its targets, head, metrics and predictions.

Configs name what is in it, and nothing imports it. It imports `runner`'s interfaces, layers and data structures.
"""
