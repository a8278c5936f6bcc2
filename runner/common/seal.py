"""The seal of a run: the proof that this installation made it, so that its records go where its config says.

A folder from elsewhere may name any file or server as the place of its records. `run.json` therefore has an HMAC of the
run's id, tracker and working directory. Its key lies in the user's state folder, outside every run's folder.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from runner.common.bounded import read_bytes, read_yaml
from runner.common.errors import HydromelError
from runner.common.records import RunRecord, parse_run
from runner.common.run_schema import RESOLVED, RUN

log = logging.getLogger(__name__)
_KEY_BYTES = 32
_LOCK_SECONDS = 10.0


def seal_of(run: RunRecord, tracker: Mapping[str, object]) -> str | None:
    """Return the seal of a run and its tracker's config; None, with a warning, if no key can be stored."""
    try:
        return _digest(_key(), run, tracker)
    except (OSError, RuntimeError, ValueError, Timeout) as error:  # RuntimeError: there is no home
        log.warning("warning: this installation has no key (%s); hydromel-sync will need --uri for this run", error)
        return None


def is_made_here(run: RunRecord, tracker: object) -> bool:
    """Return True if this installation sealed the run, and its tracker and working directory have not changed."""
    seal = run.get("seal")
    if seal is None or not isinstance(tracker, Mapping):
        return False
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return hmac.compare_digest(seal.encode(), _digest(_read_key(), run, tracker).encode())
    return False


def folder_is_made_here(folder: Path) -> bool:
    """Return `is_made_here` for the run in a folder; False if it cannot be read."""
    try:
        run = parse_run(read_bytes(folder / RUN), str(folder / RUN))
        config = read_yaml(folder / RESOLVED)
    except HydromelError:
        return False
    return isinstance(config, Mapping) and is_made_here(run, config.get("tracker"))


def _digest(key: bytes, run: RunRecord, tracker: Mapping[str, object]) -> str:
    sealed = json.dumps([run["run_id"], run.get("cwd"), tracker], sort_keys=True, default=str)
    return hmac.new(key, sealed.encode(), "sha256").hexdigest()


def _key() -> bytes:
    """Return the key of this installation, created by its first run. Raises Timeout, and the errors of `_read_key`."""
    path = _key_path()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name("key.lock"), timeout=_LOCK_SECONDS):
            if not path.exists():
                new = path.with_name("key.new")
                new.unlink(missing_ok=True)  # left by a process that was killed
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(secrets.token_bytes(_KEY_BYTES))
                new.replace(path)
    return _read_key()


def _read_key() -> bytes:
    """Return the key. Raises OSError, RuntimeError (there is no home) or ValueError (it is damaged)."""
    path = _key_path()
    with path.open("rb") as file:
        key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:  # an empty one would let anybody make seals
        raise ValueError(f"{path} is damaged; remove it")
    return key


def _key_path() -> Path:
    """Return the path of the key: `hydromel/key` in $XDG_STATE_HOME, by default in ~/.local/state."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "hydromel" / "key"
