"""The command `hydromel-audit`: is this model batch-invariant under each strategy, and if not, where does it leak?"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from runner.compose import compose_strategies
from runner.errors import HydromelError
from runner.job import failed
from runner.names import RESOLVED

Config = dict[str, Any]
_EXAMPLES = """examples:
  hydromel-audit                                         the default model under every strategy that fits
  hydromel-audit task=tag encoder=rnn                    another one
  hydromel-audit task=classify encoder=conv batching=unmasked --html audit.html
  hydromel-audit --run runs/2026-11-21/101500-tag        a trained model, its own weights
  hydromel-audit --every task=classify                   all encoders and poolings, small, a line each
  hydromel-audit --gallery                               known bugs: is each caught, and named?

exit codes: 0 all checks pass, 1 one fails (or the input is bad). docs/audit.md explains checks and kinds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 all checks pass, 1 one fails or the input is bad."""
    try:
        options = parser().parse_intermixed_args(arguments)
        if options.gallery:
            return _gallery(options)
        if options.every:
            return _every(options)
        return _audit(options)
    except HydromelError as error:
        return failed(str(error))


def _audit(options: argparse.Namespace) -> int:
    configs, left_out = _configs(options)
    # imports torch: help and a mistyped name need not wait for that
    import torch

    from runner.audit import show
    from runner.audit.config import Options, audit_config

    torch.set_num_threads(configs[0]["threads"] or 1)  # small batches: more threads only wait for each other
    weights = None if options.run is None else options.run / "checkpoints" / "best.safetensors"
    wanted = Options(
        rows=options.rows,
        longest=options.longest,
        random=options.random,
        heat=options.html is not None,
        weights=weights,
    )
    report = audit_config(configs, left_out, wanted)
    _write(options.json, json.dumps(report.as_dict(), indent=1) + "\n")
    _write(options.html, show.page(report))
    show.console(report)
    if options.html is not None:
        print(f"Page: {options.html}")
    return 0 if report.passed else 1


def _every(options: argparse.Namespace) -> int:
    if options.run or options.html or options.gallery:
        raise HydromelError("--every audits configs, one line each; it takes no --run, --gallery or --html")
    import torch

    from runner.audit import show
    from runner.audit.space import audit_space

    torch.set_num_threads(1)
    audited = []
    for one in audit_space(options.overrides, options.config_dir):
        print("\n".join(show.combination(one)), flush=True)
        audited.append(one)
    _write(options.json, json.dumps([one.as_dict() for one in audited], indent=1) + "\n")
    models = [one for one in audited if one.report is not None]
    passed = sum(one.passed for one in models)
    print(f"{passed} of {len(models)} models pass; {len(audited) - len(models)} combinations are no model (-)")
    return 0 if models and passed == len(models) else 1


def _gallery(options: argparse.Namespace) -> int:
    if options.overrides or options.run or options.html:
        raise HydromelError("--gallery audits known bugs; it takes no config, no --run and no --html")
    from runner.audit.gallery.show import as_dicts, console

    catches = console()
    _write(options.json, json.dumps(as_dicts(catches), indent=1) + "\n")
    return 0 if all(one.named and one.twin_passed for one in catches) else 1


def _configs(options: argparse.Namespace) -> tuple[list[Config], dict[str, str]]:
    """A config for each strategy to be audited: those that are named, or all; and why others do not compose."""
    if options.run is None:
        return compose_strategies(options.overrides, options.config_dir)
    if options.overrides:
        raise HydromelError(f"--run takes its config from {options.run / RESOLVED}; give no {options.overrides[0]}")
    return [_of_run(options.run)], {}


def _of_run(folder: Path) -> Config:
    if not (folder / RESOLVED).is_file():
        raise HydromelError(f"--run {folder}: that is no run's folder (it has no {RESOLVED})")
    config: Config = yaml.safe_load((folder / RESOLVED).read_text(encoding="utf-8"))
    return config


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HydromelError(f"{path}: cannot be written ({error.strerror})") from error


class _Parser(argparse.ArgumentParser):
    """Complains in one line, like every command here."""

    def error(self, message: str) -> NoReturn:
        raise HydromelError(f"{message}; see hydromel-audit --help")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog="hydromel-audit",
        description="Does what a model says about an example depend on the examples beside it? Outputs, gradients, "
        "loss, predictions and metrics of each example alone, against the same example in company.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="GROUP=NAME or key=value, as for hydromel")
    made.add_argument("--run", type=Path, metavar="FOLDER", help="audit a finished run: its config and best weights")
    made.add_argument("--rows", type=_at_least(8), default=20, metavar="N", help="examples (default: %(default)s)")
    made.add_argument(
        "--longest",
        type=_at_least(3),
        default=60,
        metavar="N",
        help="tokens; longer rows are cut (default: %(default)s)",
    )
    made.add_argument("--random", action="store_true", help="random words instead of the corpus's")
    made.add_argument("--gallery", action="store_true", help="audit known bugs instead: is each caught and named?")
    made.add_argument("--every", action="store_true", help="every task, encoder and option of configs/, small, in turn")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all verdicts and findings here")
    made.add_argument("--html", type=Path, metavar="FILE", help="write a page with a heat map, position x module")
    made.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with further configs")
    return made


def _at_least(least: int) -> Any:
    def whole_number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least}")
        return int(text)

    return whole_number


if __name__ == "__main__":
    sys.exit(main())
