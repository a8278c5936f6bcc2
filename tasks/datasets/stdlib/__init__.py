"""Built-in corpora, made from Python's standard library without a download.

Configs name the classes of this package; nothing imports it. It imports `tasks.datasets`.
"""
