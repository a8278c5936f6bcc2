"""The groups of the config and the names in each, read from the folders and files of configs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def names_by_group(folders: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Return the groups of the project and of further folders with configs, with the names in each."""
    found: dict[str, set[str]] = {}
    roots: list[Traversable] = [files("configs"), *(folder for folder in folders if folder.is_dir())]
    for group in (each for root in roots for each in root.iterdir() if each.is_dir()):
        names = {each.name.removesuffix(".yaml") for each in group.iterdir() if each.name.endswith(".yaml")}
        if names:
            found.setdefault(group.name, set()).update(names)
    return {group: sorted(names) for group, names in sorted(found.items())}
