"""Reports: what finished runs say when they are compared.

Only `compare.py`, the command, lies at its top. It reads runs' folders: of `runner` it imports names, errors and
the command line, and no part of it imports torch.
"""
