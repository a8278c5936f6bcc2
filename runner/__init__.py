"""The experiment runner: what trains, measures, evaluates and audits models.

Only `interfaces.py` (what a task, a head, an encoder, ... has to offer) and `model.py` lie at its top; all else is in
a package by subject. Nothing in it imports `tasks` or `reporting`; `tests/test_imports.py` has the order of packages.
"""

import os

# Threads of an operation wait for each other by spinning, by default for milliseconds. Beside other busy processes one
# of them is often not running, and the rest burn its time: training with two threads was 20 times slower than with one
# (docs/notes/measurements.md). They now sleep after some 50 microseconds. OpenMP reads this when torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
