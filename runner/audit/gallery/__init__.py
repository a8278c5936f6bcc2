"""Known mistakes, small enough to read, that the audit has to find.

Only commands may import it. It imports the audit as anybody would.
"""
