"""Detail tables of a run: kept within `result.json` if they are small, otherwise in Parquet files beside it.

Metrics, runs and reports may import it. It imports `runner.common` only.
"""
