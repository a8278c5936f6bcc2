"""Batching strategies: which rows make up an update, in which order and shape, and what padding that takes.

Packages that need batches may import it. Plans (`plan`, `shuffled`, `bucketed`, ...) do without torch.
"""
