"""The audit's report, on the console and as an HTML page.

Only commands may import it. It imports the audit and its checks.
"""
