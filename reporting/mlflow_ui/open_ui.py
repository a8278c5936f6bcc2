"""Print the address of the newest charts in an SQLite store, and open it if there is a browser.

`make ui` starts this next to MLflow's server. No failure here stops the server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import sqlite3
import sys
import time
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

from reporting.mlflow_ui.log_report import address
from runner.compat.mlflow import VIEW_TAG
from runner.terminal.console import show_messages
from runner.tracking.mlflow_store import LOCAL_SERVER, SQLITE, page

log = logging.getLogger(__name__)
KEYS = f"{VIEW_TAG}hydromel-"
PATIENCE_S = 60.0  # limit of the wait for the server


def main(arguments: list[str] | None = None) -> int:
    """Print the address for the file in `arguments` (default: `mlflow.db`). Always returns 0."""
    arguments = sys.argv[1:] if arguments is None else arguments
    link = newest(Path(arguments[0] if arguments else "mlflow.db"))
    show_messages()
    log.info("MLflow: %s", link)
    if _has_display() and _is_reachable(PATIENCE_S):
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(link)
    return 0


def newest(store: Path) -> str:
    """Return the address of the latest view; without views that of the latest experiment, else of the server."""
    uri = f"{SQLITE}{store}"
    with contextlib.suppress(sqlite3.Error):  # raised for a missing file too
        with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=5.0)) as database:
            views = database.execute(
                "SELECT t.experiment_id, t.key, t.value FROM experiment_tags t JOIN experiments e "
                "ON e.experiment_id = t.experiment_id WHERE e.lifecycle_stage = 'active' AND t.key LIKE ?",
                (f"{KEYS}%",),
            ).fetchall()
            latest = "SELECT MAX(experiment_id) FROM experiments WHERE lifecycle_stage = 'active'"
            (experiment,) = database.execute(latest).fetchone()
        if views:
            # Both views of a report have the same time: the shorter key is the one of strategies.
            experiment, key, _ = max(views, key=lambda view: (_updated(view[2]), -len(view[1])))
            return address(uri, str(experiment), key.removeprefix(VIEW_TAG))
        if experiment is not None:
            return address(uri, str(experiment), None)
    return page(LOCAL_SERVER, None)


def _updated(value: str) -> float:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return float(json.loads(value)["updatedAt"])
    return 0.0


def _has_display() -> bool:
    """Return True if a browser could open a window: a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _is_reachable(patience_s: float) -> bool:
    """Wait for the server; return True if it accepts connections."""
    server = urlsplit(LOCAL_SERVER)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection((str(server.hostname), server.port or 80), timeout=1.0).close()
            return True
        time.sleep(0.5)
    return False


if __name__ == "__main__":
    sys.exit(main())
