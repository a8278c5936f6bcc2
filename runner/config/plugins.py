"""Finding the user's own modules: `plugins=[my_parts]` and `--plugins my_parts`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from runner.common.errors import HydromelError


def find_plugin(name: str) -> None:
    """Check that a plugin can be imported; the working directory is added at the end of Python's path.

    Since it is last, a folder with the name of an installed package (`configs`, `datasets`) does not replace it.

    Args:
        name: of a module or package, dotted or not.

    Raises:
        HydromelError: there is no such module.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    if not _exists(name):
        raise HydromelError(
            f"plugins: no module '{name}' in {folder}, in PYTHONPATH or among the installed packages{_namesake(name)}"
        )


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # no parent package; an empty name
        return False


def _namesake(name: str) -> str:
    """Return a hint at the package that hides the user's module of the same name; empty if there is none."""
    root = name.partition(".")[0]
    spec = find_spec(root) if root != name and _exists(root) else None
    return "" if spec is None else f"; '{root}' is {spec.origin}; if that is not your module, rename yours"
