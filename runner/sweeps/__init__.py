"""Sweeps: a job's process, the order of jobs, and repeats.

Commands and `runner.sweeps.search` may import it. It starts runs as processes and does not import torch.
"""
