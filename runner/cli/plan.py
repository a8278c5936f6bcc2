"""The command `hydromel-plan`: what each batching strategy would do with a data set, without training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from runner.common.command_line import Parser, exit_code, number, whole
from runner.common.errors import HydromelError
from runner.common.files import check_writable, to_json, write_output
from runner.config.compose import compose_strategies

_EXAMPLES = """examples:
  hydromel-plan                                                  every strategy on the built-in corpus
  hydromel-plan task=tag dataset=wnut17 data_dir=DATA            on a published one
  hydromel-plan batching=bucketed --batch-sizes 16,32,64         one strategy, three sizes
  hydromel-plan device=cuda --probe-seconds 10                   speed on a GPU, timed for longer
  hydromel-plan --no-probe                                       speed left out
  hydromel-plan batching=bucketed,padmask encoder=transformer --json plan.json
  hydromel-plan task=lm task.unit=stream batching.window=70      language models that carry their state

docs/plan.md says what each figure is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0, 1 (one line says what is wrong)."""
    return exit_code(lambda: _plan(parser().parse_intermixed_args(arguments)))


def _plan(options: argparse.Namespace) -> int:
    sizes = _sizes(options.batch_sizes, options.overrides)
    configs, left_out = compose_strategies(options.overrides, options.config_dir, sizes)
    check_writable(options.json)
    # imports torch: help and a mistyped name need not wait for that
    from runner.advisor import plan_tables
    from runner.advisor.plan_report import as_dict, plan_strategies

    report = plan_strategies(configs, left_out, options.epochs, None if options.no_probe else options.probe_seconds)
    plan_tables.show(report)
    if options.json is not None:
        write_output(options.json, to_json(as_dict(report)))
    return 0


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-plan",
        description="What each batching strategy would do with a data set: padding, updates, memory, speed, and how "
        "well it shuffles. Nothing is trained but for some seconds' probe of speed, and no run's folder is made.",
        epilog=_EXAMPLES,
    )
    which = "GROUP=NAME or key=value, as for hydromel; all strategies that fit the task are shown unless batching=NAME"
    command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help=f"{which} (or NAME,NAME) is among them")
    command.add_argument("--batch-sizes", metavar="N,N", help="a line for each batching.batch_size")
    command.add_argument(
        "--epochs", type=whole(1), default=5, metavar="N", help="epochs to plan (default: %(default)s)"
    )
    command.add_argument(
        "--no-probe", action="store_true", help="time nothing: no predicted speed, and no GPU is needed"
    )
    command.add_argument(
        "--probe-seconds",
        type=number(above=0.0, most=600.0),
        default=6.0,
        metavar="S",
        help="time batches for about so long, to predict speed (default: %(default)s)",
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too, unrounded")
    command.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with further configs")
    return command


def _sizes(text: str | None, overrides: Sequence[str]) -> list[int]:
    if text is None:
        return []
    if any(override.startswith("batching.batch_size=") for override in overrides):
        raise HydromelError("--batch-sizes and batching.batch_size=N are two ways to say the same; give one of them")
    try:
        sizes = [whole(1)(size) for size in text.split(",")]
    except argparse.ArgumentTypeError as error:
        raise HydromelError(f"--batch-sizes {text}: {error}; for example 16,32,64") from error
    if len(set(sizes)) < len(sizes):
        raise HydromelError(f"--batch-sizes {text}: give each size once; for example 16,32,64")
    return sizes


if __name__ == "__main__":
    sys.exit(main())
