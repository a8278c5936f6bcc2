"""Configs: composing, checking, instantiating, hashing and saving them.

Any package above the data structures may import it. It imports only `runner.common`.
"""
