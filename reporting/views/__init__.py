"""The report as console text, tables, CSV, JSON, Markdown and an HTML page.

The command and `reporting.mlflow_ui` may import it. It imports `plots`, `comparison` and the packages below them.
"""
