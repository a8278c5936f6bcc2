"""What a model has to beat: majorities, the most frequent tag, linear models, n-gram models.

Tasks may import it. It imports heads and `tasks.targets`.
"""
