"""Arguments that name a finished run, and the function that loads it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from runner.common.errors import HydromelError
from runner.common.imports import importing
from runner.common.run_names import run_name
from runner.common.run_schema import BEST, CHECKPOINTS, FINISHED, RUN
from runner.terminal.command_line import Parser

if TYPE_CHECKING:
    from runner.config.schema import Device, Dtype

log = logging.getLogger(__name__)

T = TypeVar("T")


RUN_HELP = "a run: its folder, its name or id below --runs, or its id in MLflow; also run=RUN"


def add_run_argument(parser: Parser) -> None:
    """Add the argument that names a run, and the flags that say how it is loaded."""
    parser.add_argument("run", type=run_name, metavar="RUN", help=RUN_HELP)
    add_run_flags(parser)


def add_run_flags(parser: Parser) -> None:
    """Add the flags that say where a run is looked for, and how it is loaded."""
    add = parser.add_argument
    add_folder_flags(parser)
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device")
    add("--dtype", choices=("float32", "float64"), help="data type of the arithmetic (default: the run's)")
    add("--data-dir", metavar="FOLDER", help="folder of the data sets and vectors (default: the one used in training)")
    add_plugins_flag(parser)


def add_folder_flags(parser: Parser) -> None:
    """Add the flags that say where a run is looked for."""
    add_runs_flag(parser)
    uri = "MLflow tracking URI, if the run is given by its id there"
    parser.add_argument("--uri", default="sqlite:///mlflow.db", metavar="URI", help=uri)


def add_runs_flag(parser: Parser) -> None:
    """Add the flag for the folder in which runs are looked for by name."""
    runs = "folder of all runs (default: runs)"
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help=runs)


def add_plugins_flag(parser: Parser) -> None:
    """Add the flag that names the modules that saved runs may use."""
    help = "modules of your own that the run may use"
    parser.add_argument("--plugins", type=_names, default=[], metavar="A,B", help=help)


def _names(flag: str) -> list[str]:
    return [name for name in flag.split(",") if name]


def check_run(options: argparse.Namespace) -> None:
    """Raise HydromelError if there cannot be a run of the given name, before anything slow is imported."""
    from runner.tracking.mlflow_download import find_on_this_machine

    find_on_this_machine(options.run, options.uri, options.runs)


def loaded(options: argparse.Namespace, load: Callable[..., T]) -> T:
    """Return the result of `load(folder, device, dtype, plugins, data_dir)` for the run that the flags name.

    Raises:
        HydromelError: the run or the device does not exist, the run failed early, or `load` raises it.
    """
    from runner.tracking.mlflow_download import with_folder

    def load_checked(folder: Path) -> T:
        return load_from(folder, options.device, options.dtype, options.plugins, options.data_dir, load)

    return with_folder(options.run, options.uri, load_checked, options.runs)


def load_from(
    folder: Path,
    device: Device,
    dtype: Dtype | None,
    plugins: Sequence[str],
    data_dir: str | None,
    load: Callable[..., T],
) -> T:
    """Return the result of `load(folder, device, dtype, plugins, data_dir)` for the run in a folder; see `loaded`."""
    # imports torch, which --help and the message for a mistyped option should not wait for
    with importing():
        from runner.profiling.matmul import choose_matmul
        from runner.training.setup import choose_device

    chosen = choose_device(device, "float32", dtype or "float32")
    choose_matmul("torch")
    check_ended(folder)
    return load(folder, chosen, dtype, plugins, data_dir)


def check_ended(folder: Path) -> None:
    """Warn that the run in a folder is not finished; raise HydromelError, with the reason, if it has no checkpoint."""
    # imports pydantic, which --help should not wait for
    from runner.tracking.run_folder import how_it_ended, read_run

    if not (folder / RUN).is_file():  # for example, only the model was downloaded
        return
    run = read_run(folder)
    if run["status"] == FINISHED:
        return
    ended = f"{folder}: that run {how_it_ended(run)}"
    if not (folder / CHECKPOINTS / BEST).is_file():
        raise HydromelError(f"{ended}; it has no {CHECKPOINTS}/{BEST} yet")
    log.warning("warning: %s; its best checkpoint so far is used", ended)
