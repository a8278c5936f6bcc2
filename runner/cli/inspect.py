"""The command `hydromel-inspect`: correlate the cells and gates of a recurrent language model with a text."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.run_arguments import add_run_argument, check_run, loaded
from runner.cli.text_io import STDIO, lines_of
from runner.common.errors import HydromelError, unknown
from runner.common.files import check_writable, to_json, write_output
from runner.common.imports import importing
from runner.terminal.command_line import Parser, exit_code

if TYPE_CHECKING:
    from runner.inference.trained import TrainedModel

log = logging.getLogger(__name__)
_EXAMPLES = """examples:
  hydromel-inspect RUN --split test --html cells.html      the run's own test text (data sets: --data-dir FOLDER)
  hydromel-inspect RUN --input novel.txt --feature quotes,line_position --cells 5
  hydromel-inspect RUN --feature all < module.py            also the features of Python source

features: quotes, line_position, newline, blank_line, depth, indentation, word_position, space, capital, digit;
python_string, python_comment, python_depth. See docs/language_models.md.
exit codes: 0, 1 (an error, in one line), 130 (interrupted)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return exit_code(lambda: _inspect(parser().parse_args(arguments)))


def _inspect(options: argparse.Namespace) -> int:
    check_run(options)
    with importing():
        # imports torch, which --help and the message for a mistyped option should not wait for
        from runner.inference.inspection import show
        from runner.inference.inspection.properties import chosen
        from runner.inference.inspection.reading import read
        from runner.inference.inspection.watch import watch
        from runner.inference.trained import TrainedModel

    names = chosen(options.feature)
    for file in (options.json, options.html):
        check_writable(file)
    trained = loaded(options, TrainedModel.load)
    if not trained.task.causal:
        raise HydromelError(f"{options.run}: task={trained.task.name} is not a language model; use a run of task=lm")
    text, source = _text(options, trained)
    passage = read(trained, text, source)
    records = watch(trained.model, passage, names, options.show)
    report = show.InspectionReport.of(options.run, source, passage, records, options.cells)
    show.print_report(report)
    write_output(options.json, to_json(report.as_dict()))
    if options.html is not None:
        write_output(options.html, show.page(report))
        log.info("Page: %s", options.html)
    return 0


def _text(options: argparse.Namespace, trained: TrainedModel) -> tuple[str, str]:
    """Return at most `limit` characters of the text, and the name of their source."""
    from runner.inference.inspection.reading import joined, of_characters

    if options.split is not None:
        tables = trained.corpus.read()
        if options.split not in tables:
            raise unknown("split", options.split, tables, f"dataset={trained.corpus.name}")
        # each row gives at least one character, if only a line end
        tokens = tables[options.split]["tokens"].slice(0, options.limit)
        text = joined(tokens.to_pylist(), of_characters(trained))
        return text[: options.limit], f"{options.split} of {trained.corpus.name}"
    kept, held = [], 0
    name, lines = lines_of(options.input, options.encoding)
    for line in lines:
        kept.append(line)
        held += len(line) + 1
        if held > options.limit:
            break
    return "\n".join(kept)[: options.limit], name


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-inspect",
        description="Run a text through a recurrent language model and report which cells and gates track which "
        "feature of the text (Pearson correlation over all tokens), and how saturated gates are. --html shows the text "
        "coloured by cells and gates.",
        epilog=_EXAMPLES,
    )
    add, count = command.add_argument, command.add_count
    add_run_argument(command)
    source = command.add_mutually_exclusive_group()
    text, split = "text to read (default: standard input)", "read a split of the run's own data set instead"
    source.add_argument("--input", type=Path, default=STDIO, metavar="FILE", help=text)
    source.add_argument("--split", choices=("train", "valid", "test"), help=split)
    add("--feature", metavar="A,B", help="features of the text, or `all` (default: all except those of Python)")
    count("--cells", "cells per feature", 3, most=50)
    count("--limit", "maximum number of characters to read", 50_000, least=2)
    count("--show", "first tokens of the text to show on the page", 4_000, most=50_000)
    add("--html", type=Path, metavar="FILE", help="write a page of coloured text")
    add("--json", type=Path, metavar="FILE", help="write the printed figures to FILE")
    add("--encoding", default="utf-8", metavar="NAME", help="encoding of the text")
    return command


if __name__ == "__main__":
    sys.exit(main())
