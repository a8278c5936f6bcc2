"""The command `hydromel-lr`: the learning-rate range test, a short training with a rising learning rate."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.common.errors import HydromelError
from runner.common.files import check_writable, to_json, write_output
from runner.common.imports import importing
from runner.config.compose import compose_config
from runner.terminal.command_line import Parser, exit_code, number

if TYPE_CHECKING:
    from runner.experiment.lr_range import Range

log = logging.getLogger(__name__)
PLOT = "lr_range.png"
_EXAMPLES = """examples:
  hydromel-lr encoder=conv                                     on the built-in corpus
  hydromel-lr experiment=sst2_conv data_dir=DATA --updates 400
  hydromel-lr task=lm optimizer=sgd --low 0.01 --high 1000 --out reports --json lr.json

docs/search.md explains the plot."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit codes: 0, 1 (an error, in one line), 130 (interrupted)."""
    return exit_code(lambda: _test(parser().parse_intermixed_args(arguments)))


def _test(options: argparse.Namespace) -> int:
    if options.low >= options.high:
        raise HydromelError(f"--low {options.low:g} must be below --high {options.high:g}")
    config = compose_config(options.overrides, options.config_dir)
    if config.resume is not None:
        raise HydromelError(f"resume={config.resume}: the test trains a new model; leave it out, or use init_from=RUN")
    picture = options.out / PLOT
    for path in (picture, options.json):
        check_writable(path)
    with importing():
        # imports torch, which --help and the message for a mistyped name should not wait for
        import numpy as np

        from runner.experiment.lr_range import draw, measure_range

    rates = np.geomspace(options.low, options.high, options.updates)
    result = measure_range(config, rates, options.smoothing)
    if not len(result.rates):
        raise HydromelError(f"the loss is not finite at the first update, at --low {options.low:g}; lower --low")
    draw(result, picture)
    write_output(options.json, to_json(as_dict(result)))
    for line in (*summary(result, config.optimizer.get("lr")), f"plot: {picture}"):
        log.info(line)
    return 0


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-lr",
        description="Learning-rate range test: train once while the learning rate rises from update to update, and "
        "show where the loss falls and where it diverges. No run folder is created.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("overrides", nargs="*", metavar="OVERRIDE", help="GROUP=NAME or key=value, as for hydromel")
    add("--low", type=number(0), default=1e-5, metavar="RATE", help="first rate")
    add("--high", type=number(0), default=1.0, metavar="RATE", help="last rate")
    command.add_count("--updates", "number of updates", 300, least=10)
    add("--smoothing", type=_weight, default=0.9, metavar="W", help="exponential smoothing factor of the loss")
    add("--out", type=Path, default=Path(), metavar="DIR", help=f"folder of {PLOT} (default: .)")
    add("--json", type=Path, metavar="FILE", help="write rates, losses and the derived rates to FILE")
    add("--config-dir", type=Path, metavar="DIR", help="a folder with further configs")
    return command


def summary(result: Range, configured: object) -> list[str]:
    """Return the lines of a summary; `configured` is the configured learning rate, if there is one."""
    lines = [f"{len(result.rates)} updates, rates {result.rates[0]:.3g} to {result.rates[-1]:.3g}"]
    if result.diverged is not None:
        lines.append(f"the loss diverged at {result.diverged:.3g}")
    if result.lowest is None:
        return [*lines, "the loss did not fall at any rate: lower --low, or raise --updates"]
    lines.append(f"lowest smoothed loss at {result.lowest:.3g}, steepest fall at {result.steepest:.3g}")
    if result.still_falling:
        lines.append("the loss was still falling at the end: raise --high")
    now = f" (now {configured:g})" if isinstance(configured, int | float) else ""
    return [*lines, f"suggested: optimizer.lr={result.suggestion:.2g}, a tenth of the rate at the lowest loss{now}"]


def as_dict(result: Range) -> dict[str, object]:
    """Return plain values, a list for each array."""
    arrays = {"rates": result.rates, "losses": result.losses, "smoothed": result.smoothed}
    figures = ("diverged", "lowest", "steepest", "suggestion", "still_falling")
    return {name: array.tolist() for name, array in arrays.items()} | {name: getattr(result, name) for name in figures}


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
