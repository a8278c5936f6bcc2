"""The corpora that need no download: Python's own standard library.

Configs name what is in it, and nothing imports it. It imports `tasks.datasets`.
"""
