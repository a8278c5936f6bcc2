"""The command `hydromel-evaluate`: evaluate a finished run on its own splits, or score each line of any text."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.run_arguments import add_run_argument, check_run, loaded
from runner.cli.text_io import STDIO, lines_of, writing
from runner.common.errors import HydromelError
from runner.common.files import check_writable, to_json, write_output
from runner.common.imports import importing
from runner.terminal.command_line import Parser, exit_code

if TYPE_CHECKING:
    from runner.inference.evaluation.tally import Tally

_EXAMPLES = """examples:
  hydromel-evaluate RUN                                 the run's own test set (valid if there is none)
  hydromel-evaluate RUN --split valid --json valid.json
  hydromel-evaluate RUN --streams 1 --window 1000       a stream, each token with its full context
  hydromel-evaluate RUN --input lines.txt | sort -n     log P, perplexity, tokens and unknown tokens by line
  hydromel-evaluate RUN --input - --format jsonl < lines.txt

exit codes: 0, 1 (an error, in one line), 130 (interrupted), 141 (the output was closed).
See docs/language_models.md."""
_CHUNK = 2**22
_OF_TEXT = {"output": STDIO, "format": "tsv", "independent": False, "chunk": _CHUNK, "encoding": "utf-8"}
_OF_SPLITS = {"split": None, "streams": None, "window": None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return exit_code(lambda: _evaluate(parser().parse_args(arguments)))


def _evaluate(options: argparse.Namespace) -> int:
    _check(options)
    check_writable(options.json)
    content = _split(options) if options.input is None else _text(options)
    write_output(options.json, to_json({"run": options.run, **content}))
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise HydromelError for an option that has no effect with or without --input."""
    useless, why = (_OF_TEXT, "needs --input") if options.input is None else (_OF_SPLITS, "has no effect on --input")
    for name, default in useless.items():
        if getattr(options, name) != default:
            raise HydromelError(f"--{name} {why}; see hydromel-evaluate --help")


def _split(options: argparse.Namespace) -> dict[str, object]:
    """Evaluate a split, print its figures and return them."""
    check_run(options)
    with importing():
        # imports torch, which --help and the message for a mistyped option should not wait for
        from runner.inference.evaluation.show import print_metrics
        from runner.inference.evaluation.splits import SplitEvaluation
        from runner.profiling.malloc import choose_malloc
        from runner.tables.detail import as_rows

    run = loaded(options, SplitEvaluation.load).reading(options.streams, options.window)
    choose_malloc(run.trained.malloc)
    split, metrics = run.measure(options.split, options.batch_size)
    print_metrics(f"{split} of {run.trained.corpus.name}", metrics)
    named = {"task": run.trained.task.name, "dataset": run.trained.corpus.name, "split": split}
    return {**named, "metrics": as_rows(metrics)}


def _text(options: argparse.Namespace) -> dict[str, object]:
    """Write one output line per line of a text; return the figures of the whole text."""
    check_run(options)
    with importing():
        from runner.inference.evaluation.lines import LineScorer
        from runner.inference.evaluation.show import print_totals
        from runner.inference.evaluation.tally import Tally
        from runner.inference.generation.language_model import LanguageModel, NextToken
        from runner.inference.trained import TrainedModel
        from runner.profiling.malloc import choose_malloc
        from runner.text.formats.reader import passages, single

    trained = loaded(options, TrainedModel.load)
    choose_malloc(trained.malloc)
    if not isinstance(trained.task, NextToken):
        raise HydromelError(
            f"{options.run}: task={trained.task.name} gives no probabilities of text; use hydromel-predict for new "
            "text, or leave out --input to evaluate the run's own splits"
        )
    carried = trained.task.unit == "stream" and not options.independent
    scorer = LineScorer(LanguageModel(trained, options.run, allow_unk=True), carried, options.batch_size)
    total = Tally()
    name, lines = lines_of(options.input, options.encoding)
    with writing(options.output) as sink:
        for passage in passages(single(lines), name, options.chunk):
            tallies = scorer.score(passage.lines)
            sink.write("".join(f"{_line(tally, options.format)}\n" for tally in tallies).encode())
            sink.flush()  # a reader may wait for these lines before it writes more input
            total = sum(tallies, start=total)
    if total.tokens:
        print_totals(total)
    return {"lines": "continued" if carried else "independent", "metrics": total.figures() if total.tokens else {}}


def _line(tally: Tally, form: str) -> str:
    figures = tally.figures()
    if form == "jsonl":
        return to_json(figures, indent=None).rstrip("\n")
    return f"{figures['log_p']:.4f}\t{figures['perplexity']:.4f}\t{tally.tokens}\t{tally.unknown}"


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-evaluate",
        description="Evaluate the best checkpoint of a finished run, in full precision, on a split of its data set. "
        "With --input, compute log P (nats) of each line of a text with a language model.",
        epilog=_EXAMPLES,
    )
    add, count = command.add_argument, command.add_count
    add_run_argument(command)
    split = "split to evaluate (default: test, or valid if there is no test)"
    add("--split", choices=("train", "valid", "test"), help=split)
    count("--streams", "parallel streams, each of which starts without context (default: the run's)")
    count("--window", "tokens of a stream per forward pass (default: the run's)")
    add("--input", type=Path, metavar="FILE", help="text to score instead of a split, plain or gzip (-: stdin)")
    add("--output", type=Path, default=_OF_TEXT["output"], metavar="FILE", help="output lines of --input (-: stdout)")
    form = "output of --input: tsv (log P, perplexity, tokens, unknown tokens) or jsonl (all figures)"
    add("--format", choices=("tsv", "jsonl"), default=_OF_TEXT["format"], help=form)
    independent = "score each line without context, even if the run reads a stream (task.unit)"
    add("--independent", action="store_true", help=independent)
    add("--json", type=Path, metavar="FILE", help="write all figures and tables to FILE")
    count("--batch-size", "rows per batch", 128)
    count("--chunk", "characters of the text that are read at a time", _CHUNK)
    add("--encoding", default=_OF_TEXT["encoding"], metavar="NAME", help="encoding of the text")
    return command


if __name__ == "__main__":
    sys.exit(main())
