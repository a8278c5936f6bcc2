"""Reading MLflow's shared views, for tests."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any


def read_state(value: str) -> dict[str, Any]:
    """Return the page's state from the value of a view's tag."""
    packed = json.loads(value)["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state
