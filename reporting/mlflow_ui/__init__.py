"""The report in MLflow: the store and experiment it belongs to, the views of its charts, and the page's address.

Only the command may import it. It imports `views` and the packages below it.
"""
