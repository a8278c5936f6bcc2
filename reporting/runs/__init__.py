"""Runs as they are found: in folders or in MLflow, their records, settings and figures, and which of them count.

Any package of `reporting` but statistics may import it.
"""
