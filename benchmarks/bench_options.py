"""What `bench.py` is asked for; mistakes are answered before anything is measured."""

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
    """The command line's options; `names` are of the rows that there are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default=os.environ.get("HYDROMEL_DATA") or None, help="folder of the published data sets"
    )
    parser.add_argument(
        "--rows", nargs="+", metavar="NAME", help="of the table (default: all; a wrong name lists them)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=positive, default=5, help="at least; two more warm up")
    parser.add_argument(
        "--sentences", type=positive, nargs="+", default=[500, 5_000, 50_000, 500_000], help="of `growth`"
    )
    parser.add_argument("--json", type=Path, help="rows are written there, in place of former ones of the same name")
    parser.add_argument("--plot", type=Path, help="a PNG of the ratios in the file")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="with bench.json and bench.png, or bench_gpu.*")
    options = parser.parse_args()
    if options.results is not None:
        name = "bench_gpu" if options.device == "cuda" else "bench"
        options.json, options.plot = (options.results / f"{name}.{end}" for end in ("json", "png"))
    try:
        check(options, names(options))
    except HydromelError as mistake:
        parser.error(str(mistake))
    if options.data is None and not options.rows:
        print(f"no data sets (--data FOLDER, or HYDROMEL_DATA): only {' and '.join(WITHOUT_DATA)} are measured")
        options.rows = WITHOUT_DATA
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def check(options: argparse.Namespace, names: list[str]) -> None:
    """Raises HydromelError for what would fail later, perhaps after hours."""
    asked = options.rows or []
    if unknown := [name for name in asked if name not in names]:
        raise HydromelError(f"--rows {' '.join(unknown)}: there is {', '.join(names)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise HydromelError("--device cuda: torch finds no GPU")
    if options.data is None and set(asked) - set(WITHOUT_DATA):
        raise HydromelError("the published data sets are needed: --data FOLDER, or HYDROMEL_DATA")
    for path in filter(None, (options.json, options.plot)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as mistake:
            raise HydromelError(f"{path} cannot be written: {mistake}") from None
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise HydromelError(f"{path} cannot be written")
    former(options.json)


def former(path: Path | None) -> dict[str, Any]:
    """The rows of a file. Raises HydromelError where it is none of `bench.py`."""
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as mistake:
        raise HydromelError(f"{path} cannot be read: {mistake}") from None
    rows = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(row, dict) and "circumstances" in row for row in rows):
        raise HydromelError(f"{path} holds something other than rows of bench.py")
    return dict(found)
