"""Formats of the text that trained models read and write: lines, columns, JSON Lines.

Commands, `runner.inference` and the readers in `tasks.datasets` may import it. It imports only `runner.common`.
"""
