"""Rows of different lengths: their lengths and places, values of their tokens, batches of them, blocks of similar rows.

Nearly every package may import it. It imports only `runner.common`.
"""
