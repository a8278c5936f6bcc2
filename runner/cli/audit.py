"""The command `hydromel-audit`: is this model batch-invariant under each strategy, and if not, where does it leak?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from runner.common.command_line import Parser, exit_code, whole
from runner.common.errors import HydromelError
from runner.common.files import check_writable, to_json, write_output
from runner.common.run_schema import RESOLVED
from runner.config.compose import compose_config, compose_strategies, under
from runner.config.saved import saved_run
from runner.config.schema import RunConfig

_NO_INSIGHT = ": more add time, not insight"
ALONE = {  # flags that say what is audited, and others that they take
    "gallery": ("known bugs", ("json",)),
    "every": ("configs, one line each", ("json", "config_dir", "overrides")),
}
_EXAMPLES = """examples:
  hydromel-audit                                         the default model under every strategy that fits
  hydromel-audit task=tag encoder=rnn                    another one
  hydromel-audit task=classify encoder=conv batching=unmasked --html audit.html
  hydromel-audit --run runs/2026-11-21/101500-tag        a trained model, its own weights
  hydromel-audit --run runs/FOLDER batching=bucketed     the same under another strategy
  hydromel-audit --every task=classify                   all encoders and poolings, small, a line each
  hydromel-audit --gallery                               known bugs: is each caught, and named?

exit codes: 0 all checks pass, 1 one fails (or the input is bad). docs/audit.md explains checks and kinds."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit codes: 0 all checks pass, 1 one fails or the input is bad."""
    return exit_code(lambda: _command(arguments))


def _command(arguments: Sequence[str] | None) -> int:
    command = parser()
    options = command.parse_intermixed_args(arguments)
    _check(options, command.get_default)
    for file in (options.json, options.html):
        check_writable(file)
    if options.gallery:
        return _gallery(options)
    if options.every:
        return _every(options)
    return _audit(options)


def _audit(options: argparse.Namespace) -> int:
    configs, left_out = _configs(options)
    # imports torch: help and a mistyped name need not wait for that
    import torch

    from runner.audit.config_audit import AuditOptions, audit_config
    from runner.audit.report.console import print_report
    from runner.audit.report.page import page

    torch.set_num_threads(configs[0].threads or 1)  # small batches: more threads only wait for each other
    weights = None if options.run is None else options.run / "checkpoints" / "best.safetensors"
    wanted = AuditOptions(
        rows=options.rows,
        longest=options.longest,
        random=options.random,
        heat=options.html is not None,
        weights=weights,
    )
    report = audit_config(configs, left_out, wanted)
    print_report(report)
    if options.json is not None:
        write_output(options.json, to_json(report.as_dict()))
    if options.html is not None:
        write_output(options.html, page(report))
        print(f"Page: {options.html}")
    return 0 if report.passed else 1


def _every(options: argparse.Namespace) -> int:
    import torch

    from runner.audit.report.text import combination
    from runner.audit.search_space import audit_space

    torch.set_num_threads(1)
    audited = []
    for audit in audit_space(options.overrides, options.config_dir):
        print("\n".join(combination(audit)), flush=True)
        audited.append(audit)
    models = [audit for audit in audited if audit.report is not None]
    passed = sum(audit.passed for audit in models)
    print(f"{passed} of {len(models)} models pass; {len(audited) - len(models)} combinations are no model (-)")
    if options.json is not None:
        write_output(options.json, to_json([audit.as_dict() for audit in audited]))
    return 0 if models and passed == len(models) else 1


def _gallery(options: argparse.Namespace) -> int:
    from runner.audit.gallery.cases import run_gallery
    from runner.audit.gallery.show import as_dicts, print_results

    results = run_gallery()
    print_results(results)
    if options.json is not None:
        write_output(options.json, to_json(as_dicts(results)))
    return 0 if all(result.is_correct and result.twin_passed for result in results) else 1


def _check(options: argparse.Namespace, default: Callable[[str], object]) -> None:
    """Raise HydromelError for flags that would have no effect beside others."""
    for flag, (what, takes) in ALONE.items():
        if getattr(options, flag):
            for name, value in vars(options).items():
                if name not in (flag, *takes) and value not in ([], default(name)):
                    got = options.overrides[0] if name == "overrides" else f"--{name.replace('_', '-')}"
                    raise HydromelError(f"--{flag} audits {what}; it takes no {got}")
    for override in options.overrides:
        if override.lstrip("+").startswith("resume=") and override.partition("=")[2] != "null":
            raise HydromelError(f"{override}: to audit a run, give --run FOLDER; leave it out")


def _configs(options: argparse.Namespace) -> tuple[list[RunConfig], dict[str, str]]:
    """A config for each strategy to be audited: those that are named, or all; and why others do not compose."""
    if options.run is None:
        return compose_strategies(options.overrides, options.config_dir)
    for override in options.overrides:
        if not override.startswith(("batching=", "plugins=")):
            raise HydromelError(
                f"--run takes its config from {options.run / RESOLVED}; beside it only batching=NAME and "
                f"plugins=[NAME], no {override}"
            )
    plugins = compose_config([override for override in options.overrides if override.startswith("plugins=")]).plugins
    config = saved_run(options.run, plugins)
    if not any(override.startswith("batching=") for override in options.overrides):
        return [config], {}
    strategies, left_out = compose_strategies(options.overrides, options.config_dir)
    return [under(config, strategy) for strategy in strategies], left_out


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-audit",
        description="Does what a model says about an example depend on the examples beside it? Outputs, gradients, "
        "loss, predictions and metrics of each example alone, against the same example in company.",
        epilog=_EXAMPLES,
    )
    command.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="GROUP=NAME or key=value, as for hydromel")
    command.add_argument("--run", type=Path, metavar="FOLDER", help="audit a finished run: its config and best weights")
    command.add_argument(
        "--rows", type=whole(8, 512, _NO_INSIGHT), default=20, metavar="N", help="examples (default: %(default)s)"
    )
    command.add_argument(
        "--longest",
        type=whole(3, 4096, _NO_INSIGHT),
        default=60,
        metavar="N",
        help="tokens; longer rows are cut (default: %(default)s)",
    )
    command.add_argument("--random", action="store_true", help="random words instead of the corpus's")
    command.add_argument("--gallery", action="store_true", help="audit known bugs instead: is each caught and named?")
    command.add_argument(
        "--every", action="store_true", help="every task, encoder and option of configs/, small, in turn"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write all verdicts and findings here")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page with a heat map, position x module")
    command.add_argument("--config-dir", type=Path, metavar="DIR", help="a folder with further configs")
    return command


if __name__ == "__main__":
    sys.exit(main())
