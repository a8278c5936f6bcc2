"""The report as text, tables, CSV, JSON and a page.

The command and `reporting.mlflow_ui` may import it. It imports plots, the comparison and all below.
"""
