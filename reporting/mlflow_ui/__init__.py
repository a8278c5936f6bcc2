"""The report in MLflow: where it belongs, the view of charts, and the page's address.

Only the command may import it. It imports views and all below.
"""
