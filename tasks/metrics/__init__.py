"""Quality metrics of labels, spans and likelihoods, and the contribution of each example to them.

Tasks and predictions may import it. It imports spans and `tasks.targets`.
"""
