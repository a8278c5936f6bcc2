"""Baselines that a model should beat: most frequent tags, linear models, n-gram models.

Tasks may import it. It imports heads and `tasks.targets`.
"""
