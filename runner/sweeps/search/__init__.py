"""Hyper-parameter search: spaces, trials, studies and their outcome.

Only commands may import it. It imports `runner.sweeps`, records and configs.
"""
