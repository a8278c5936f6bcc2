"""A run's records: its folder, where it came from, and the trackers to which it is delivered.

Packages from training upwards may import it; `reporting` may import `mlflow_store` alone. It knows no model.
"""
