"""Formats of the text that finished models read and write: lines, columns, JSON lines.

Commands, `runner.inference` and the readers in `tasks.datasets` may import it. It imports only `runner.common`.
"""
