"""The options of `hydromel-generate`, and the combinations that are refused."""

from __future__ import annotations

import argparse
import os

from runner.cli.run_arguments import add_run_flags
from runner.common.command_line import Parser, number, whole
from runner.common.errors import HydromelError

_EXAMPLES = """examples:
  hydromel-generate run=RUN prompt="def main("                               always the likeliest token
  hydromel-generate run=RUN prompt="KING:" --temperature 0.8 --top-p 0.95    sampled, and shown token by token
  hydromel-generate run=RUN --samples 5 --top-k 40 --seed 7                  five texts, the likeliest first
  hydromel-generate run=RUN --prompts lines.txt --beam 8 --nbest 3 --json    beam search, one prompt per line

exit codes: 0, 1 (an error, in one line), 130 (interrupted), 141 (the output was closed).
See docs/language_models.md."""
_DRAWING = ("temperature", "top_k", "top_p", "samples")  # any of them selects sampling
_SEARCHING = ("nbest", "length_penalty")  # need --beam


def draws(options: argparse.Namespace) -> bool:
    """True if sampling was requested."""
    return any(getattr(options, name) is not None for name in _DRAWING)


def check(options: argparse.Namespace) -> None:
    """Set `run` and `prompt` from the positional arguments.

    Raises:
        HydromelError: an argument is neither, or a flag has no effect together with others.
    """
    options.run, options.prompt = None, []
    for word in options.words:
        name, equals, value = word.partition("=")
        if name == "prompt" and equals:
            options.prompt.append(_as_utf_8(value))
        elif options.run is None:
            options.run = value if name == "run" and equals else word
        else:
            raise HydromelError(f"'{word}': give one run=RUN, and each text as prompt=\"...\"")
    if options.run is None:
        raise HydromelError(
            "no run was named; give run=FOLDER, or run=ID for a run in MLflow; see hydromel-generate --help"
        )
    if options.prompt and options.prompts is not None:
        raise HydromelError("prompt= and --prompts exclude each other; give one of them")
    if options.prompts is None and not options.prompt:
        options.prompt = [""]
    _check_method(options)


def _as_utf_8(argument: str) -> str:
    """Return an argument decoded as UTF-8, whatever the locale."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise HydromelError("prompt= is not UTF-8; use --prompts FILE --encoding NAME for other encodings") from None


def _check_method(options: argparse.Namespace) -> None:
    given = [name for name in (*_DRAWING, "seed") if getattr(options, name) is not None]
    if options.beam is not None and given:
        raise HydromelError(
            f"--beam and {_flag(given[0])} exclude each other, since a beam search does not sample; give one of them"
        )
    if options.beam is None:
        for name in _SEARCHING:
            if getattr(options, name) is not None:
                raise HydromelError(f"{_flag(name)} needs a beam search; give --beam N as well")
    elif (options.nbest or 1) > options.beam:
        raise HydromelError(
            f"--nbest {options.nbest}: --beam {options.beam} finds at most {options.beam} texts; raise --beam"
        )
    if options.seed is not None and not draws(options):
        raise HydromelError("--seed has no effect without sampling; give --temperature, --top-k, --top-p or --samples")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-generate",
        description="Continue prompts with the best checkpoint of a run of task=lm: with the likeliest token at each "
        "step, by sampling (--temperature, --top-k, --top-p, --samples) or by beam search (--beam).",
        epilog=_EXAMPLES,
    )
    add = command.add_argument
    add(
        "words",
        nargs="*",
        metavar="run=RUN prompt=TEXT",
        help="the run's folder, or its id in MLflow; and any number of prompts",
    )
    add("--prompts", metavar="FILE", help="file with one prompt per line, plain or gzip (-: stdin)")
    add(
        "--encoding",
        default="utf-8",
        metavar="NAME",
        help="encoding of --prompts (default: %(default)s); output is utf-8",
    )
    add("--max-tokens", type=whole(1), default=100, metavar="N", help="maximum tokens per text (default: %(default)s)")
    add("--temperature", type=number(0.0), metavar="T", help="divide log P by T (default: 1)")
    add("--top-k", type=whole(1), metavar="N", help="sample among the N likeliest tokens")
    add(
        "--top-p",
        type=number(0.0, 1.0),
        metavar="P",
        help="sample among the likeliest tokens whose probabilities sum to P",
    )
    add("--samples", type=whole(1), metavar="N", help="sample N texts per prompt, the likeliest first")
    add("--seed", type=whole(0, 2**63 - 1), metavar="N", help="random seed of sampling (default: 0)")
    add("--beam", type=whole(1), metavar="N", help="beam search with N hypotheses")
    add(
        "--length-penalty",
        type=number(None),
        metavar="A",
        help="rank by log P / ((5 + length) / 6)^A (default: 0, by log P)",
    )
    add("--nbest", type=whole(1), metavar="N", help="texts shown per beam search (default: 1)")
    add("--allow-unk", action="store_true", help="allow <unk> in generated text")
    add("--json", action="store_true", help="print one JSON object per prompt, one per line")
    add(
        "--batch-size",
        type=whole(1),
        default=32,
        metavar="N",
        help="texts per batch, at least those of one prompt (default: %(default)s)",
    )
    add_run_flags(command)
    return command
