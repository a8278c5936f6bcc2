"""Searches for options: spaces, trials, studies, and what they found.

Only commands may import it. It imports `runner.sweeps`, records and configs.
"""
