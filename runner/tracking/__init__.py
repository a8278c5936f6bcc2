"""A run's records: its folder, its provenance, and the trackers to which it is delivered.

Packages from training upwards may import it; `reporting` may import only `mlflow_store`. It does not depend on models.
"""
