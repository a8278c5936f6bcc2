"""The command `hydromel-predict`: a finished run answers new text, in the text's own order and format."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from runner.cli.run_arguments import add_run_flags, loaded
from runner.cli.text_io import STDIO, reading, writing
from runner.common.command_line import Parser, exit_code, whole
from runner.common.errors import HydromelError

if TYPE_CHECKING:
    from runner.inference.trained import Predictor
    from runner.text.formats.base import TextFormat

_EXAMPLES = """examples:
  hydromel-predict runs/2026-11-21/101500-123456-tag-wnut17-bucketed --input news.conll --output tagged.conll
  hydromel-predict run=RUN --format lines < lines.txt > tags.txt           a line of tags (or a label) for each line
  hydromel-predict run=RUN --format jsonl --probabilities < in.jsonl       {"tokens": [...]} or {"text": "..."} a line
  hydromel-predict run=0a1b2c... --uri http://localhost:5000 < text > out  a run in MLflow

exit codes: 0, 1 (one line says what is wrong), 130 (interrupted), 141 (nobody reads on). docs/predict.md explains."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return exit_code(lambda: _predict(parser().parse_args(arguments)))


def _predict(options: argparse.Namespace) -> int:
    # imports torch: help and a mistyped option need not wait for that
    from runner.inference.trained import Predictor
    from runner.text.formats.reader import check_encoding, passages, read_lines

    check_encoding(options.encoding)
    run = loaded(options, Predictor.load)
    wanted = _text_format(options, run)
    name = "stdin" if options.input == STDIO else str(options.input)
    wanted.check(run.columns, run.inspector.column)
    started, rows, tokens = time.perf_counter(), 0, 0
    with reading(options.input) as source, writing(options.output) as sink:
        lines = read_lines(source, name, options.encoding)
        for passage in passages(lines, name, options.chunk, wanted.may_end):
            parsed = wanted.parse(passage, run.columns)
            answers = run.answer(parsed.table, options.batch_size)
            if not options.probabilities:
                answers = replace(answers, probability=None)
            _put(sink, wanted.write(passage, parsed, answers), options)
            rows += parsed.table.num_rows
            tokens += len(parsed.table["tokens"].combine_chunks().flatten())
    seconds = time.perf_counter() - started
    print(f"{rows:,} rows, {tokens:,} tokens in {seconds:.1f} s: {tokens / seconds:,.0f} tokens/s", file=sys.stderr)
    return 0


def _text_format(options: argparse.Namespace, run: Predictor) -> TextFormat:
    """The format that the command names, else that of the run's own data; with options of the command."""
    from runner.text.formats.base import HasTextFormat
    from runner.text.formats.columns import Columns
    from runner.text.formats.json_lines import JsonLines
    from runner.text.formats.lines import Lines

    own: TextFormat = run.trained.corpus.text_format() if isinstance(run.trained.corpus, HasTextFormat) else Lines()
    if options.format == "lines":
        own = Lines()
    if options.format == "columns" and not isinstance(own, Columns):
        own = Columns("tab", {"tokens": 0})
    if options.format == "jsonl" and not isinstance(own, JsonLines):
        own = JsonLines("tokens", "text")
    given: dict[str, Any] = {}
    if isinstance(own, Columns):
        given = {"separator": options.separator, "columns": options.columns}
        own = replace(own, **{name: value for name, value in given.items() if value is not None})
    elif options.separator or options.columns:
        raise HydromelError("--separator and --columns say how columns are read; use them with --format columns")
    if isinstance(own, JsonLines):
        own = replace(own, added=options.field)
    elif options.field:
        raise HydromelError("--field names a field of JSON objects; use it with --format jsonl")
    return own


def _put(sink: BinaryIO, lines: list[str], options: argparse.Namespace) -> None:
    try:
        sink.write("".join(f"{line}\n" for line in lines).encode(options.encoding))
        sink.flush()  # somebody may wait for these before there are more
    except UnicodeEncodeError as error:
        raise HydromelError(
            f"--encoding {options.encoding} cannot write {error.object[error.start]!a}, which an answer holds"
        ) from error


def parser() -> Parser:
    command = Parser(
        prog="hydromel-predict",
        description="Labels or tags new text with the best checkpoint of a finished run. Text is tokenised: tokens "
        "stand between spaces, in a column, or in a list.",
        epilog=_EXAMPLES,
    )
    command.add_argument("run", metavar="RUN", help="a run's folder, or the id of a run in MLflow; also run=RUN")
    command.add_argument("--input", type=Path, default=STDIO, metavar="FILE", help="text, plain or gzip (-: stdin)")
    command.add_argument("--output", type=Path, default=STDIO, metavar="FILE", help="where answers go (-: stdout)")
    command.add_argument(
        "--format",
        choices=("lines", "columns", "jsonl"),
        help="of input and output (default: that of the run's data, if it is columns or jsonl; else lines)",
    )
    command.add_argument("--probabilities", action="store_true", help="write each answer's probability, 0 to 1, too")
    command.add_argument(
        "--separator", choices=("tab", "space"), help="between columns (default: as the run's data, or tab)"
    )
    command.add_argument(
        "--columns",
        type=_places,
        metavar="NAME=PLACE,...",
        help="places of columns from 0, negative from the right (default: as the run's data, or tokens=0)",
    )
    command.add_argument("--field", metavar="NAME", help="of the answers in JSON objects (default: label or tags)")
    command.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="of input and output (default: %(default)s)"
    )
    command.add_argument("--batch-size", type=whole(1), default=128, metavar="N", help="rows at a time (%(default)s)")
    command.add_argument(
        "--chunk",
        type=whole(1),
        default=2**22,
        metavar="N",
        help="characters of text that are read and answered at a time (default: %(default)s)",
    )
    add_run_flags(command)
    return command


def _places(text: str) -> dict[str, int]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    try:
        return {name: int(place) for name, _, place in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form tokens=0,pos=1") from None


if __name__ == "__main__":
    sys.exit(main())
