"""Where the published data sets are. Tests that read them carry the mark `data` and are skipped without the folder."""

from __future__ import annotations

import os

DATA = os.environ.get("HYDROMEL_DATA", "")  # a folder; empty: there is none
