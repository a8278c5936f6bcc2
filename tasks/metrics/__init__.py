"""Figures of quality: of labels, spans and likelihoods, and what each example adds to them.

Tasks and predictions may import it. It imports spans and `tasks.targets`.
"""
