"""Configs: how they are composed, checked, made into objects, hashed and saved with a run.

Any package above the data structures may import it. It imports only `runner.common`.
"""
