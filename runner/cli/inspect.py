"""The command `hydromel-inspect`: correlate the cells and gates of a recurrent language model with a text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.run_arguments import add_run_flags, loaded
from runner.cli.text_io import STDIO, reading
from runner.common.command_line import Parser, exit_code, whole
from runner.common.errors import HydromelError, unknown
from runner.common.files import check_writable, to_json, write_output

if TYPE_CHECKING:
    from runner.inference.trained import TrainedModel

_EXAMPLES = """examples:
  hydromel-inspect run=RUN --split test --html cells.html      the run's own test text (data sets: --data-dir FOLDER)
  hydromel-inspect run=RUN --input novel.txt --feature quotes,line_position --cells 5
  hydromel-inspect run=RUN --feature all < module.py            also the features of Python source

features: quotes, line_position, newline, blank_line, depth, indentation, word_position, space, capital, digit;
python_string, python_comment, python_depth. See docs/language_models.md.
exit codes: 0, 1 (an error, in one line), 130 (interrupted)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return exit_code(lambda: _inspect(parser().parse_args(arguments)))


def _inspect(options: argparse.Namespace) -> int:
    # imports torch, which --help and the message for a mistyped option should not wait for
    from runner.inference.inspection import show
    from runner.inference.inspection.properties import chosen
    from runner.inference.inspection.reading import read
    from runner.inference.inspection.watch import watch

    names = chosen(options.feature)
    for file in (options.json, options.html):
        check_writable(file)
    trained = _load(options)
    text, source = _text(options, trained)
    passage = read(trained, text, source)
    records = watch(trained.model, passage, names, options.show)
    report = show.InspectionReport.of(options.run.removeprefix("run="), source, passage, records, options.cells)
    show.print_report(report)
    write_output(options.json, to_json(report.as_dict()))
    if options.html is not None:
        write_output(options.html, show.page(report))
        print(f"Page: {options.html}")
    return 0


def _load(options: argparse.Namespace) -> TrainedModel:
    from runner.inference.trained import TrainedModel

    trained = loaded(options, TrainedModel.load)
    if not trained.task.causal:
        raise HydromelError(f"{options.run}: task={trained.task.name} is not a language model; use a run of task=lm")
    return trained


def _text(options: argparse.Namespace, trained: TrainedModel) -> tuple[str, str]:
    """Return at most `limit` characters of the text, and the name of their source."""
    from runner.inference.inspection.reading import joined, of_characters

    if options.split is not None:
        tables = trained.corpus.read()
        if options.split not in tables:
            raise unknown("split", options.split, tables, f"dataset={trained.corpus.name}")
        tokens = tables[options.split]["tokens"].slice(0, options.limit)  # a row has a token, or is a line's end
        text = joined(tokens.to_pylist(), of_characters(trained))
        return text[: options.limit], f"{options.split} of {trained.corpus.name}"
    name = "stdin" if options.input == STDIO else str(options.input)
    kept, held = [], 0
    for line in _lines(options, name):
        kept.append(line)
        held += len(line) + 1
        if held > options.limit:
            break
    return "\n".join(kept)[: options.limit], name


def _lines(options: argparse.Namespace, name: str) -> Iterator[str]:
    from runner.text.formats.reader import check_encoding, read_lines

    check_encoding(options.encoding)
    with reading(options.input) as source:
        yield from read_lines(source, name, options.encoding)


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-inspect",
        description="Run a text through a recurrent language model and report which cells and gates track which "
        "feature of the text (Pearson correlation over all tokens), and how saturated gates are. --html shows the text "
        "coloured by cells and gates.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add("run", metavar="run=RUN", help="a finished run's folder, or its id in MLflow")
    source = command.add_mutually_exclusive_group()
    source.add_argument(
        "--input", type=Path, default=STDIO, metavar="FILE", help="text to read (default: standard input)"
    )
    source.add_argument(
        "--split", choices=("train", "valid", "test"), help="read a split of the run's own data set instead"
    )
    add("--feature", metavar="A,B", help="features of the text, or `all` (default: all except those of Python)")
    add("--cells", type=whole(1, 50), default=3, metavar="N", help="cells per feature (default: %(default)s)")
    add(
        "--limit",
        type=whole(2),
        default=50_000,
        metavar="CHARS",
        help="maximum number of characters to read (default: %(default)s)",
    )
    add(
        "--show",
        type=whole(1, 50_000),
        default=4_000,
        metavar="N",
        help="first tokens of the text to show on the page (default: %(default)s)",
    )
    add("--html", type=Path, metavar="FILE", help="write a page of coloured text")
    add("--json", type=Path, metavar="FILE", help="write the printed figures to FILE")
    add("--encoding", default="utf-8", metavar="NAME", help="encoding of the text (default: %(default)s)")
    add_run_flags(command)
    return command


if __name__ == "__main__":
    sys.exit(main())
