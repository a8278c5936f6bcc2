"""Heads: token vectors -> scores, losses and answers; and what an example weighs in the loss.

Tasks and baselines may import it. It imports layers and `tasks.targets`.
"""
