"""The options of `bench.py`; mistakes are reported before anything is measured."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from runner.common.errors import HydromelError

WITHOUT_DATA = ["crf", "growth"]


def parsed(description: str | None, names: Callable[[argparse.Namespace], list[str]]) -> argparse.Namespace:
    """Return the options of the command line; `names` returns the names of all rows."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default=os.environ.get("HYDROMEL_DATA") or None, help="folder of the published data sets"
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="rows to measure (default: all; a wrong name lists them)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=5, help="measured rounds; two more warm up")
    parser.add_argument(
        "--sentences",
        type=positive,
        nargs="+",
        default=[500, 5_000, 50_000, 500_000],
        help="sizes of the corpus of `growth`",
    )
    parser.add_argument("--json", type=Path, help="write rows to this file, replacing earlier ones of the same name")
    parser.add_argument("--plot", type=Path, help="draw the ratios of all rows in the file to this PNG")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="folder of bench.json and bench.png, or on a GPU bench_gpu.*"
    )
    options = parser.parse_args()
    if options.results is not None:
        name = "bench_gpu" if options.device == "cuda" else "bench"
        options.json, options.plot = (options.results / f"{name}.{end}" for end in ("json", "png"))
    try:
        check(options, names(options))
    except HydromelError as mistake:
        parser.error(str(mistake))
    if options.data is None and not options.rows:
        print(
            f"no data sets (give --data FOLDER, or set HYDROMEL_DATA): only {' and '.join(WITHOUT_DATA)} are measured"
        )
        options.rows = WITHOUT_DATA
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1; give a positive number")
    return number


def check(options: argparse.Namespace, names: list[str]) -> None:
    """Raise HydromelError for options that would fail later, perhaps after hours."""
    asked = options.rows or []
    if unknown := [name for name in asked if name not in names]:
        raise HydromelError(f"--rows {' '.join(unknown)}: no such row; use {', '.join(names)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise HydromelError("--device cuda: torch finds no GPU; use --device cpu")
    if options.data is None and set(asked) - set(WITHOUT_DATA):
        raise HydromelError("the published data sets are needed: give --data FOLDER, or set HYDROMEL_DATA")
    for path in filter(None, (options.json, options.plot)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as mistake:
            raise HydromelError(f"{path} cannot be written: {mistake}") from None
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise HydromelError(f"{path} cannot be written")
    former(options.json)


def former(path: Path | None) -> dict[str, Any]:
    """Return the rows of a file, none if it does not exist. Raises HydromelError for a file of another kind."""
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as mistake:
        raise HydromelError(f"{path} cannot be read: {mistake}") from None
    rows = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(row, dict) and "circumstances" in row for row in rows):
        raise HydromelError(f"{path} was not written by bench.py; name another file")
    return dict(found)
