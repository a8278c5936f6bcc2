"""The command `hydromel-predict`: label or tag new text with a finished run, in the order and format of the text."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from runner.cli.run_arguments import add_run_argument, check_run, loaded
from runner.cli.text_io import STDIO, lines_of, writing
from runner.common.errors import HydromelError
from runner.common.imports import importing
from runner.common.printable import printable
from runner.terminal.command_line import Parser, exit_code
from runner.terminal.progress import stage

if TYPE_CHECKING:
    import pyarrow as pa

    from runner.inference.trained import Predictor
    from runner.text.formats.base import Parsed, PassagePredictions, TextFormat
    from runner.text.formats.reader import Passage

# ending of a file's name -> its format
_ENDINGS = {"conll": "columns", "conllu": "conllu", "csv": "csv", "jsonl": "jsonl", "tsv": "tsv"}
_TABLES = ("arrow", "feather", "parquet")  # endings of binary tables
Writer: TypeAlias = "Callable[[Passage, Parsed, PassagePredictions], None]"
_EXAMPLES = """examples:
  hydromel-predict runs/2026-11-21/101500-123456-tag-wnut17-bucketed --input news.conll --output tagged.conll
  hydromel-predict RUN --format lines < lines.txt > tags.txt           one line of tags, or a label, per line
  hydromel-predict RUN --format jsonl --probabilities < in.jsonl       one object per line
  hydromel-predict RUN --format csv --columns tokens=review < in.csv   further columns `label`, ...
  hydromel-predict RUN --input news.conll --to jsonl                   one object per row: tokens and tags
  hydromel-predict RUN --to parquet --output tags.parquet < lines.txt  a table with one row per row
  hydromel-predict 0a1b2c... --uri http://localhost:5000 < text > out  a run in MLflow

exit codes: 0, 1 (an error, in one line), 130 (interrupted), 141 (the output was closed). See docs/predict.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return exit_code(lambda: _predict(parser().parse_args(arguments)))


def _predict(options: argparse.Namespace) -> int:
    check_run(options)
    with importing():
        # imports torch, which --help and the message for a mistyped option should not wait for
        from runner.inference.trained import Predictor
        from runner.terminal.rich_tables import PlainConsole
        from runner.text.formats.base import no_rows
        from runner.text.formats.reader import Passage, passages
        from runner.text.tokenizers import OFFSETS

    name, lines = lines_of(options.input, options.encoding)
    run = loaded(options, Predictor.load)
    note = _format_of_name(options, run)
    lines = _plain_lines(options, run, lines)
    wanted = _text_format(options, run)
    columns = [*run.columns, *(OFFSETS if options.spans else ())]
    wanted.check(run.columns, run.inspector.column)
    _check_spans(options, run, wanted)
    if note:
        PlainConsole(file=sys.stderr).print(note)
    texts = [column for column in run.columns if column in ("tokens", "tokens_b")]
    started, rows, tokens = time.perf_counter(), 0, 0

    def predicted(table: pa.Table) -> PassagePredictions:
        predictions = run.predict(table, options.batch_size)
        if not options.probabilities:
            predictions = replace(predictions, probability=None)
        return run.with_spans(predictions, table) if options.spans else predictions

    with (
        writing(options.output) as sink,
        _writer(sink, wanted, options) as write,
        stage("predicting", shown=not sink.isatty()) as bar,
    ):
        nothing = no_rows(columns)
        write(Passage(name, 1, []), nothing, predicted(nothing.table))  # the header, if the format has one
        for passage in passages(wanted.groups(lines, name), name, options.chunk):
            parsed = wanted.parse(passage, columns)
            write(passage, parsed, predicted(parsed.table))
            rows += parsed.table.num_rows
            tokens += sum(len(parsed.table[name].combine_chunks().flatten()) for name in texts)
            bar.detail = f"{rows:,} rows  {tokens / (time.perf_counter() - started):,.0f} tok/s"
    seconds = time.perf_counter() - started
    speed = f"{rows:,} rows, {tokens:,} tokens in {seconds:.1f} s: {tokens / seconds:,.0f} tokens/s"
    PlainConsole(file=sys.stderr).print(speed)  # standard output is for predictions
    return 0


def _check_spans(options: argparse.Namespace, run: Predictor, wanted: TextFormat) -> None:
    """Raise a HydromelError if --spans was given and the run, or the formats, have none."""
    from runner.text.formats.lines import JsonLines, Lines

    if not options.spans:
        return
    run.check_spans()
    has_spans = options.to in ("json", "jsonl", "parquet")
    if not isinstance(wanted, JsonLines | Lines) or (isinstance(wanted, Lines) and not has_spans):
        raise HydromelError(
            "--spans needs text or JSON, and JSON or Parquet out: --format jsonl, or --format lines --to jsonl"
        )


def _format_of_name(options: argparse.Namespace, run: Predictor) -> str | None:
    """Set --format by the ending of the input's name if it is not that of the run's own files; return a note of it.

    Raises:
        HydromelError: the name is that of a table in a binary format.
    """
    from runner.text.formats.columns import Columns
    from runner.text.formats.conllu import ConlluColumns
    from runner.text.formats.delimited import Delimited
    from runner.text.formats.lines import JsonLines

    ending = _ending(str(options.input))
    if options.format or ending is None:
        return None
    if ending in _TABLES:
        raise HydromelError(
            f"{options.input}: a table in {ending.capitalize()} is not text; write its rows as JSON Lines or CSV, or "
            "predict in Python (docs/api.md)"
        )
    train = getattr(run.trained.corpus, "train", None)  # readers of local files have it
    own = _own_format(run)
    kind = "lines"
    if isinstance(own, Delimited):
        kind = "tsv" if own.delimiter == "\t" else "csv"
    elif isinstance(own, JsonLines):
        kind = "jsonl"
    elif isinstance(own, Columns):
        kind = "conllu" if isinstance(own, ConlluColumns) else "columns"
    if _ENDINGS[ending] == kind or {ending, kind} == {"conll", "conllu"}:
        return None
    if ending in map(_ending, [train] if isinstance(train, str) else train or ()):
        return None
    options.format = _ENDINGS[ending]
    return f"{options.input}: read as --format {options.format}, for its name; the run's own format is {kind}"


def _own_format(run: Predictor) -> TextFormat | None:
    """Return the format of the files that the run was trained on; None if their reader names none."""
    from runner.text.formats.base import HasTextFormat

    corpus = run.trained.corpus
    return corpus.text_format() if isinstance(corpus, HasTextFormat) else None


def _ending(name: str) -> str | None:
    """Return the ending of a file's name, without that of its compression, if it stands for a format."""
    found = re.search(r"\.(\w+)(\.gz)?$", name)
    return found[1] if found and found[1] in (*_ENDINGS, *_TABLES) else None


def _plain_lines(options: argparse.Namespace, run: Predictor, lines: Iterator[str]) -> Iterator[str]:
    """Return the lines; `--format lines` is set for a text that does not begin as the run's own format does.

    That of a run on JSON begins with an object, that of a run on CSV or TSV with a header that names its columns. The
    text must be a file `*.txt`, or standard input without a delimiter in its first line: a header may be mistyped.
    """
    from runner.terminal.rich_tables import PlainConsole
    from runner.text.formats.delimited import Delimited
    from runner.text.formats.lines import JsonLines

    own, is_stdin = _own_format(run), options.input == STDIO
    if options.format or options.columns or not isinstance(own, JsonLines | Delimited):
        return lines
    if not is_stdin and not re.search(r"\.txt(\.gz)?$", options.input.name):
        return lines
    first, missing = [*islice(lines, 1)], ""
    if isinstance(own, JsonLines):
        missing = "" if "".join(first).lstrip().startswith("{") else "object"
    elif own.header and not (is_stdin and own.delimiter in "".join(first)):
        missing = own.missing_in_header("".join(first))
    if first and missing and run.columns == ["tokens"]:
        name = "stdin" if is_stdin else options.input
        PlainConsole(file=sys.stderr).print(f"{name}: plain lines of text; the first one has no {missing}")
        options.format = "lines"
    return chain(first, lines)


def _text_format(options: argparse.Namespace, run: Predictor) -> TextFormat:
    """Return the format that the command names, otherwise that of the run's data set."""
    from runner.text.formats.columns import Columns
    from runner.text.formats.conllu import ConlluColumns
    from runner.text.formats.delimited import Delimited
    from runner.text.formats.lines import JsonLines, Lines
    from runner.text.formats.objects import TOKENS_B, TextFields
    from runner.text.tokenizers import BY_NAME, tokenizer_of

    tokenizer = BY_NAME[options.tokenizer] if options.tokenizer else tokenizer_of(run.trained.corpus)
    lines = Lines(tokenizer)
    own: TextFormat = _own_format(run) or lines
    delimiter = {"csv": ",", "tsv": "\t"}.get(options.format)
    if options.format == "lines" and not isinstance(own, Lines):
        own = lines
    if options.format == "columns" and not isinstance(own, Columns):
        own = Columns("tab", {"tokens": 0})
    if options.format == "conllu" and not isinstance(own, ConlluColumns):
        own = ConlluColumns.of({"tokens": "form", "lemma": "lemma", "xpos": "xpos"})
    if options.format == "jsonl" and not isinstance(own, JsonLines):
        own = JsonLines("tokens", "text", tokenizer=tokenizer)
    if delimiter is not None and not (isinstance(own, Delimited) and own.delimiter == delimiter):
        table = Delimited(delimiter, delimiter == ",", None, True, {"tokens": ["text"]}, tokenizer=tokenizer)
        own = replace(table, header=own.header, columns=own.columns) if isinstance(own, Delimited) else table
    columns: dict[str, int | str] | None = options.columns
    if isinstance(own, Delimited) and columns:
        own = replace(own, columns={**own.columns, **{name: [place] for name, place in columns.items()}})
    elif isinstance(own, Columns):
        places = own.columns if columns is None else {}
        for name, place in (columns or {}).items():
            if isinstance(place, str):
                raise HydromelError(
                    f"--columns {name}={place}: with --format columns give a position, such as {name}=0"
                )
            places[name] = place
        own = replace(own, separator=options.separator or own.separator, columns=places)
    elif isinstance(own, JsonLines) and columns:
        fields = {name: TextFields(str(place), str(place)) for name, place in columns.items()}
        if unknown := [name for name in fields if name not in ("tokens", TOKENS_B)]:
            raise HydromelError(f"--columns {unknown[0]}=...: --format jsonl has tokens and tokens_b, by name")
        first, second = fields.get("tokens", own), fields.get(TOKENS_B, own.second)
        own = replace(own, tokens_field=first.tokens_field, text_field=first.text_field, second=second)
    elif columns:
        raise HydromelError("--columns needs --format columns, csv, tsv or jsonl")
    if options.separator and not isinstance(own, Columns):
        raise HydromelError("--separator needs --format columns")
    if options.tokenizer and isinstance(own, Columns):
        raise HydromelError("--tokenizer splits raw text, and columns hold tokens; use --format lines, jsonl or csv")
    if isinstance(own, Lines):
        own = replace(own, tokenizer=tokenizer)
    if isinstance(own, JsonLines | Delimited):
        own = replace(own, added=options.field, tokenizer=tokenizer)
    elif options.field and options.to is None:
        raise HydromelError("--field needs --format jsonl, csv or tsv, or --to")
    return own


@contextmanager
def _writer(sink: BinaryIO, wanted: TextFormat, options: argparse.Namespace) -> Iterator[Writer]:
    """Yield a function that writes the predictions of a passage."""
    from runner.text.formats.records import ParquetRecords, Records

    if options.to == "parquet":
        if sink.isatty():
            raise HydromelError("--to parquet writes binary data, which a terminal cannot show; give --output FILE")
        with closing(ParquetRecords(sink, options.field)) as file:
            yield lambda passage, parsed, predictions: file.write(parsed.table, predictions)
    elif options.to is not None:
        records = Records(options.to, options.field)
        yield lambda passage, parsed, predictions: _put(sink, records.write(parsed.table, predictions), options)
        _put(sink, records.end(), options)
    else:
        yield lambda passage, parsed, predictions: _put(sink, wanted.write(passage, parsed, predictions), options)


def _put(sink: BinaryIO, lines: list[str], options: argparse.Namespace) -> None:
    text, errors = "".join(f"{line}\n" for line in lines), "strict"
    if sink.isatty():
        text, errors = printable(text), "replace"
    try:
        sink.write(text.encode(options.encoding, errors))
        sink.flush()  # a reader may wait for these lines before it writes more input
    except UnicodeEncodeError as error:
        raise HydromelError(
            f"--encoding {options.encoding} cannot write {error.object[error.start]!a}, which the predictions contain; "
            "use utf-8"
        ) from error


def parser() -> Parser:
    command = Parser(
        prog="hydromel-predict",
        description="Label or tag new text with the best checkpoint of a finished run. Raw text is split into "
        "tokens as in training, unless tokens are given in a column or a list.",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add_run_argument(command)
    add("--input", type=Path, default=STDIO, metavar="FILE", help="text, plain or gzip (-: stdin)")
    add("--output", type=Path, default=STDIO, metavar="FILE", help="predictions (-: stdout)")
    form = (
        "format of the input (default: that of the ending of its name, such as .csv; otherwise that of the data set if "
        "it is columns, conllu, csv, tsv or jsonl, otherwise lines; stdin or a file *.txt without the header or the "
        "objects of csv, tsv and jsonl has lines)"
    )
    add("--format", choices=("lines", "columns", "conllu", "csv", "tsv", "jsonl"), help=form)
    add(
        "--to",
        choices=("csv", "json", "jsonl", "parquet"),
        help="format of the output: one record per row (default: as the input)",
    )
    add("--probabilities", action="store_true", help="also write the probability of each prediction, from 0 to 1")
    tokenizers = "how raw text is split into tokens (default: as in training; white space for runs on given tokens)"
    add("--tokenizer", choices=("whitespace", "words", "characters"), help=tokenizers)
    add(
        "--spans",
        action="store_true",
        help="also write spans, by characters of the text (taggers; JSON or Parquet out)",
    )
    separator = "separator of --format columns (default: that of the run's data set, or tab)"
    add("--separator", choices=("tab", "space"), help=separator)
    columns = (
        "columns by position, from 0, or negative from the right; in csv and tsv also by name, in jsonl by name "
        "(default: those of the data set, or tokens=0, in csv, tsv and jsonl tokens=text)"
    )
    add("--columns", type=_columns, metavar="NAME=COLUMN,...", help=columns)
    field = "field or column of the predictions (default: label, labels, value or tags; predicted_... if it is taken)"
    add("--field", metavar="NAME", help=field)
    add("--encoding", default="utf-8", metavar="NAME", help="encoding of input and output")
    command.add_count("--batch-size", "rows per batch", 128)
    command.add_count("--chunk", "characters of text that are read at a time", 2**22)
    return command


def _columns(text: str) -> dict[str, int | str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name and column for name, _, column in pairs):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form tokens=0,pos=1")
    return {name: int(column) if re.fullmatch("-?[0-9]{1,9}", column) else column for name, _, column in pairs}


if __name__ == "__main__":
    sys.exit(main())
