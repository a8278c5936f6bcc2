"""Tasks: classification, tagging and language modelling, each with its targets, head, metrics and predictions.

Configs name the classes of this package; nothing imports it. It imports `runner`'s interfaces, layers and data.
"""
