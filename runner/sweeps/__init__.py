"""Sweeps: the processes of jobs, one or several at a time; the order of jobs, repeats, and jobs of Hydra's launchers.

Commands and `runner.sweeps.search` may import it. It starts runs as processes and does not import torch.
"""
