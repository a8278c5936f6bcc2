"""The experiment runner: what trains, measures, evaluates and audits models.

Only `interfaces.py` (what a task, a head, an encoder, ... has to offer) and `model.py` lie at its top; all else is in
a package by subject. Nothing in it imports `tasks` or `reporting`; `tests/test_imports.py` has the order of packages.
"""
