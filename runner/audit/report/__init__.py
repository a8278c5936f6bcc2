"""The audit's report, on the console and as a page.

Only commands may import it. It imports the audit and its checks.
"""
