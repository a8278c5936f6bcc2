"""The command `hydromel-audit`: check that a model is batch-invariant, and locate the fault if it is not."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from runner.cli.run_arguments import add_folder_flags, check_ended
from runner.common.errors import HydromelError
from runner.common.files import check_writable, to_json, write_output
from runner.common.imports import importing
from runner.common.run_names import run_name
from runner.common.run_schema import BEST, CHECKPOINTS, RESOLVED
from runner.config.compose import compose_config, compose_strategies, under
from runner.config.saved import saved_run
from runner.config.schema import RunConfig, name_of
from runner.terminal.command_line import Parser, exit_code
from runner.tracking.mlflow_download import with_folder

log = logging.getLogger(__name__)
_NO_INSIGHT = ": higher numbers only take longer"
EXCLUSIVE = {  # flags that choose the object of the audit, with its description and the flags allowed with it
    "gallery": ("known bugs", ("json",)),
    "every": ("configs, one line each", ("json", "config_dir", "overrides")),
}
_EXAMPLES = """examples:
  hydromel-audit                                         the default model under every strategy that fits
  hydromel-audit task=tag encoder=rnn                    another model
  hydromel-audit task=classify encoder=conv batching=unmasked --html audit.html
  hydromel-audit RUN                                     a trained model, its own weights
  hydromel-audit RUN batching=bucketed                   the same under another strategy
  hydromel-audit --every task=classify                   all encoders and poolings, small, one line each
  hydromel-audit --gallery                               known bugs: each must be found and named

exit codes: 0 (all checks pass), 1 (a check fails, or the input is wrong). See docs/audit.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Exit codes: 0 (all checks pass), 1 (a check fails, or the input is wrong)."""
    return exit_code(lambda: _command(arguments))


def _command(arguments: Sequence[str] | None) -> int:
    command = parser()
    options = command.parse_intermixed_args(arguments)
    _name_run(options)
    _check(options, command.get_default)
    for file in (options.json, options.html):
        check_writable(file)
    if options.run is not None:
        return with_folder(options.run, options.uri, partial(_of_run, options), options.runs)
    work = _gallery if options.gallery else _every if options.every else _audit
    return work(options)


def _name_run(options: argparse.Namespace) -> None:
    """Set `run` to the name of the run among the overrides, None if there is none, and take it out of them."""
    named = [word for word in options.overrides if word.startswith("run=") or ("=" not in word and word[:1] != "~")]
    options.overrides = [word for word in options.overrides if word not in named]
    if len(named) > 1:
        raise HydromelError(f"{named[1]}: one run is audited at a time; other arguments are GROUP=NAME or key=value")
    options.run = run_name(named[0]) if named else None


def _of_run(options: argparse.Namespace, folder: Path) -> int:
    options.run = folder
    return _audit(options)


def _audit(options: argparse.Namespace) -> int:
    configs, left_out = _configs(options)
    with importing():
        # imports torch, which --help and the message for a mistyped name should not wait for
        import torch

        from runner.audit.config_audit import AuditOptions, audit_config
        from runner.audit.report import page, print_report

    torch.set_num_threads(configs[0].threads or 1)  # small batches: more threads only wait for each other
    weights = None if options.run is None else options.run / CHECKPOINTS / BEST
    heat = options.html is not None
    wanted = AuditOptions(options.rows, options.longest, random=options.random, heat=heat, weights=weights)
    strategies = ", ".join(name_of(config.batching) for config in configs)
    rows = f"{options.rows} rows of at most {options.longest} tokens"
    log.info("auditing %s under %s: %s, which takes up to minutes", options.run or "the config", strategies, rows)
    report = audit_config(configs, left_out, wanted)
    print_report(report)
    write_output(options.json, to_json(report.as_dict()))
    if options.html is not None:
        write_output(options.html, page(report))
        log.info("Page: %s", options.html)
    return 0 if report.passed else 1


def _every(options: argparse.Namespace) -> int:
    with importing():
        import torch

        from runner.audit.report import combination
        from runner.audit.search_space import audit_space

    torch.set_num_threads(1)
    audited = []
    for audit in audit_space(options.overrides, options.config_dir):
        log.info("\n".join(combination(audit)))
        audited.append(audit)
    models = [audit for audit in audited if audit.report is not None]
    passed = sum(audit.passed for audit in models)
    not_possible = len(audited) - len(models)
    log.info("%d of %d models pass; %d combinations are not possible (-)", passed, len(models), not_possible)
    write_output(options.json, to_json([audit.as_dict() for audit in audited]))
    return 0 if models and passed == len(models) else 1


def _gallery(options: argparse.Namespace) -> int:
    from runner.audit.gallery.cases import print_results, run_gallery

    results = run_gallery()
    print_results(results)
    write_output(options.json, to_json([result.as_dict() for result in results]))
    return 0 if all(result.is_correct and result.twin_passed for result in results) else 1


def _check(options: argparse.Namespace, default: Callable[[str], object]) -> None:
    """Raise HydromelError for flags that have no effect together with others."""
    for flag, (what, allowed) in EXCLUSIVE.items():
        if getattr(options, flag):
            for name, value in vars(options).items():
                if name not in (flag, *allowed) and value not in ([], default(name)):
                    words = {"overrides": options.overrides[:1], "run": [options.run]}
                    (got,) = words.get(name, [f"--{name.replace('_', '-')}"])
                    raise HydromelError(f"--{flag} audits {what} and does not take {got}; leave it out")
    for override in options.overrides:
        if override.lstrip("+").startswith("resume=") and override.partition("=")[2] != "null":
            raise HydromelError(f"{override}: name a run to audit it, as in hydromel-audit RUN")


def _configs(options: argparse.Namespace) -> tuple[list[RunConfig], dict[str, str]]:
    """Return a config for each strategy to audit (those named, or all), and the reasons why others are left out."""
    if options.run is None:
        return compose_strategies(options.overrides, options.config_dir)
    for override in options.overrides:
        if not override.startswith(("batching=", "plugins=")):
            raise HydromelError(
                f"{override}: the config is that of the run, {options.run / RESOLVED}; only batching=NAME and "
                "plugins=[NAME] can be given with a run"
            )
    plugins = compose_config([override for override in options.overrides if override.startswith("plugins=")]).plugins
    check_ended(options.run)
    config = saved_run(options.run, plugins)
    if not any(override.startswith("batching=") for override in options.overrides):
        return [config], {}
    strategies, left_out = compose_strategies(options.overrides, options.config_dir)
    return [under(config, strategy) for strategy in strategies], left_out


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-audit",
        description="Check that a model's outputs do not depend on batching: compare outputs, gradients, loss, "
        "predictions and metrics of each example run by itself with those of the same example in a batch.",
        epilog=_EXAMPLES,
    )
    add, count = command.add_argument, command.add_count
    overrides = "GROUP=NAME or key=value, as for hydromel; or a finished run, whose config and best weights are audited"
    add("overrides", nargs="*", metavar="OVERRIDE|RUN", help=overrides)
    add_folder_flags(command)
    count("--rows", "number of examples", 20, 8, 512, _NO_INSIGHT)
    count("--longest", "maximum tokens of an example; longer ones are cut", 60, 3, 4096, _NO_INSIGHT)
    add("--random", action="store_true", help="use random words instead of the data set")
    add("--gallery", action="store_true", help="audit known bugs: each must be found and named")
    add("--every", action="store_true", help="audit every task, encoder and option of configs/, with small models")
    add("--json", type=Path, metavar="FILE", help="write all verdicts and findings to FILE")
    add("--html", type=Path, metavar="FILE", help="write a page with a heat map of modules by positions")
    add("--config-dir", type=Path, metavar="DIR", help="a folder with further configs")
    return command


if __name__ == "__main__":
    sys.exit(main())
