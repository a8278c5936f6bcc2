"""Heads: token vectors -> scores, losses and predictions; and the weights of examples in the loss.

Tasks and baselines may import it. It imports layers and `tasks.targets`.
"""
