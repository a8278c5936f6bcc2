"""A gallery of known bugs in small modules, which the audit must find.

Only commands may import it. It imports the audit like any user.
"""
