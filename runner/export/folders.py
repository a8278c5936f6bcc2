"""Exporting the pretrained transformer of a run as a folder that transformers can read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runner.common.errors import HydromelError
from runner.common.files import cannot_write
from runner.inference.trained import TrainedModel
from runner.interfaces import WritesFolder


def check_folder(path: Path) -> None:
    """Raise a HydromelError if there is something at `path` already."""
    if path.exists() or path.is_symlink():
        raise HydromelError(f"--output {path}: it exists already; give a new folder")


def export_folder(trained: TrainedModel, path: Path) -> float:
    """Write the transformer of a run, without encoder and head, to a new folder; return how much its vectors differ.

    Raises:
        HydromelError: the run has no such part, or the folder cannot be written or does not compute what the run does.
    """
    parts = [part for part in trained.model.modules() if isinstance(part, WritesFolder)]
    if not parts:
        raise HydromelError("--format transformers is for runs with embedding=pretrained or embedding=pretrained_lm")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        difference = parts[0].write_folder(temporary)
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return difference
