"""The command `hydromel-plan`: predict the padding, memory and speed of each batching strategy without training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.common.errors import HydromelError
from runner.common.files import check_writable, to_json, write_output
from runner.common.imports import importing
from runner.config.compose import compose_strategies
from runner.terminal.command_line import Parser, exit_code, number, whole

_EXAMPLES = """examples:
  hydromel-plan                                                  every strategy on the built-in corpus
  hydromel-plan task=tag dataset=wnut17 data_dir=DATA            a published data set
  hydromel-plan batching=bucketed --batch-sizes 16,32,64         one strategy, three sizes
  hydromel-plan device=cuda --probe-seconds 10                   speed on a GPU, with longer timing
  hydromel-plan --no-probe                                       without a prediction of speed
  hydromel-plan batching=bucketed,padmask encoder=transformer --json plan.json
  hydromel-plan task=lm task.unit=stream batching.window=70      language models that carry their state

docs/plan.md explains each figure."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit codes: 0, 1 (an error, in one line)."""
    return exit_code(lambda: _plan(parser().parse_intermixed_args(arguments)))


def _plan(options: argparse.Namespace) -> int:
    sizes = _sizes(options.batch_sizes, options.overrides)
    configs, left_out = compose_strategies(options.overrides, options.config_dir, sizes)
    check_writable(options.json)
    with importing():
        # imports torch, which --help and the message for a mistyped name should not wait for
        from runner.advisor import plan_tables
        from runner.advisor.plan_report import as_dict, plan_strategies

    report = plan_strategies(configs, left_out, options.epochs, None if options.no_probe else options.probe_seconds)
    plan_tables.show(report)
    write_output(options.json, to_json(as_dict(report)))
    return 0


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-plan",
        description="Predict padding, updates, memory and speed of each batching strategy on a data set, and how well "
        "it shuffles. Nothing is trained except for a few seconds that measure speed, and no run folder is created.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    overrides = "GROUP=NAME or key=value, as for hydromel; batching=NAME,NAME limits the strategies (default: all)"
    add("overrides", nargs="*", metavar="OVERRIDE", help=overrides)
    add("--batch-sizes", metavar="N,N", help="batch sizes to plan, one line each")
    command.add_count("--epochs", "number of epochs to plan", 5)
    add("--no-probe", action="store_true", help="skip timing: no speeds, and no GPU is needed for device=cuda")
    timing = "approximate seconds of timing, to predict speed"
    add("--probe-seconds", type=number(above=0.0, most=600.0), default=6.0, metavar="S", help=timing)
    add("--json", type=Path, metavar="FILE", help="write all figures, unrounded, to FILE")
    add("--config-dir", type=Path, metavar="DIR", help="a folder with further configs")
    return command


def _sizes(text: str | None, overrides: Sequence[str]) -> list[int]:
    if text is None:
        return []
    if any(override.startswith("batching.batch_size=") for override in overrides):
        raise HydromelError("--batch-sizes and batching.batch_size=N exclude each other; give one of them")
    try:
        sizes = [whole(1)(size) for size in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise HydromelError(f"--batch-sizes {text}: {error}; for example 16,32,64") from error
    if len(set(sizes)) < len(sizes):
        raise HydromelError(f"--batch-sizes {text}: give each size once; for example 16,32,64")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
