"""Training: the loop, its state, optimisers, schedules, checkpoints, and what happens when memory runs out.

Packages that run or audit models may import it. It does not depend on commands or tasks.
"""
