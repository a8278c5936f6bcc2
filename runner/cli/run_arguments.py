"""Arguments that name a finished run, and the function that loads it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from runner.common.command_line import Parser

T = TypeVar("T")


def add_run_flags(parser: Parser) -> None:
    """Add the flags that say how a finished run is loaded."""
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device (default: %(default)s)")
    add("--dtype", choices=("float32", "float64"), help="data type of the arithmetic (default: the run's)")
    add(
        "--uri",
        default="sqlite:///mlflow.db",
        metavar="URI",
        help="MLflow tracking URI, if the run is given by its id (default: %(default)s)",
    )
    add("--data-dir", metavar="FOLDER", help="folder of the data sets and vectors (default: the one used in training)")
    add_plugins_flag(parser)


def add_plugins_flag(parser: Parser) -> None:
    """Add the flag that names the modules that saved runs may use; `plugin_names` reads it."""
    parser.add_argument("--plugins", default="", metavar="A,B", help="modules of your own that the run may use")


def plugin_names(flag: str) -> list[str]:
    """Return the names in the value of `--plugins`."""
    return [name for name in flag.split(",") if name]


def loaded(options: argparse.Namespace, load: Callable[..., T]) -> T:
    """Return the result of `load(folder, device, dtype, plugins, data_dir)` for the run that the flags name.

    Raises:
        HydromelError: the run or the device does not exist, or `load` raises it.
    """
    # imports torch, which --help and the message for a mistyped option should not wait for
    from runner.profiling.matmul import choose_matmul
    from runner.tracking.mlflow_download import with_folder
    from runner.training.setup import choose_device

    device = choose_device(options.device, "float32", options.dtype or "float32")
    choose_matmul("torch")
    plugins = plugin_names(options.plugins)
    return with_folder(
        options.run, options.uri, lambda folder: load(folder, device, options.dtype, plugins, options.data_dir)
    )
