"""Rows of different lengths: `Rows` (lengths and index maps), `Ragged` (values), `Batch`, `Updates`, blocks of rows.

Nearly every package may import it. It imports only `runner.common`.
"""
