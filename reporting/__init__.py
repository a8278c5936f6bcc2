"""Comparison reports of finished runs.

The package itself holds only the command, `compare.py`. It reads the folders of runs; of `runner` it imports the names
of files and keys, the errors and the command line. Nothing here imports torch.
"""
