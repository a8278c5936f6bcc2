"""Batching strategies: the rows of each update, their order and layout, and the padding that results.

Packages that need batches may import it. Plans (`plan`, `shuffled`, `bucketed`, ...) do not need torch.
"""
