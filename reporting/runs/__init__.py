"""Reading of runs: finding them in folders or in MLflow, their records, settings and figures, and which of them count.

Every package of `reporting` except `statistics` may import it.
"""
