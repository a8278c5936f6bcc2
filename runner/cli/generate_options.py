"""The options of `hydromel-generate`, and the combinations that are refused."""

from __future__ import annotations

import argparse
import os

from runner.cli.run_arguments import add_run_flags
from runner.common.command_line import Parser, number, whole
from runner.common.errors import HydromelError

_EXAMPLES = """examples:
  hydromel-generate run=RUN prompt="def main("                               the likeliest token, again and again
  hydromel-generate run=RUN prompt="KING:" --temperature 0.8 --top-p 0.95    drawn, and shown as it comes
  hydromel-generate run=RUN --samples 5 --top-k 40 --seed 7                  five texts, the likeliest first
  hydromel-generate run=RUN --prompts lines.txt --beam 8 --nbest 3 --json    beam search, a prompt a line

exit codes: 0, 1 (one line says what is wrong), 130 (interrupted), 141 (nobody reads on).
docs/language_models.md explains."""
_DRAWING = ("temperature", "top_k", "top_p", "samples")  # one of them asks for sampling
_SEARCHING = ("nbest", "length_penalty")  # have a meaning with --beam alone


def draws(options: argparse.Namespace) -> bool:
    """True if sampling was requested."""
    return any(getattr(options, name) is not None for name in _DRAWING)


def check(options: argparse.Namespace) -> None:
    """Sort out RUN and prompts among the words given.

    Raises:
        HydromelError: words that are neither, and flags that have no effect beside others.
    """
    options.run, options.prompt = None, []
    for word in options.words:
        name, equals, value = word.partition("=")
        if name == "prompt" and equals:
            options.prompt.append(_as_utf_8(value))
        elif options.run is None:
            options.run = value if name == "run" and equals else word
        else:
            raise HydromelError(f"'{word}': give one run=RUN, and texts as prompt=\"...\"")
    if options.run is None:
        raise HydromelError("no run: give run=FOLDER, or run=ID of MLflow; see hydromel-generate --help")
    if options.prompt and options.prompts is not None:
        raise HydromelError("prompt= and --prompts: give the one or the other")
    if options.prompts is None and not options.prompt:
        options.prompt = [""]
    _check_method(options)


def _as_utf_8(argument: str) -> str:
    """A word of the command line, whatever the locale takes it for."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise HydromelError("prompt= is not of UTF-8; give such text by --prompts FILE --encoding NAME") from None


def _check_method(options: argparse.Namespace) -> None:
    given = [name for name in (*_DRAWING, "seed") if getattr(options, name) is not None]
    if options.beam is not None and given:
        raise HydromelError(f"--beam with {_flag(given[0])}: a beam search draws nothing; give the one or the other")
    if options.beam is None:
        for name in _SEARCHING:
            if getattr(options, name) is not None:
                raise HydromelError(f"{_flag(name)} is for a beam search; give --beam N too")
    elif (options.nbest or 1) > options.beam:
        raise HydromelError(f"--nbest {options.nbest}: a beam of {options.beam} finds no more than {options.beam}")
    if options.seed is not None and not draws(options):
        raise HydromelError(
            "--seed has no effect where nothing is drawn; give --temperature, --top-k, --top-p or --samples"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-generate",
        description="Goes on from prompts with the best checkpoint of a run of task=lm: by the likeliest token "
        "at each step, by tokens that are drawn (--temperature, --top-k, --top-p, --samples), or by a beam search "
        "(--beam).",
        epilog=_EXAMPLES,
    )
    command.add_argument(
        "words",
        nargs="*",
        metavar="run=RUN prompt=TEXT",
        help="the run's folder or its id in MLflow; any number of prompts",
    )
    command.add_argument("--prompts", metavar="FILE", help="a prompt a line, plain or gzip; - is stdin")
    command.add_argument(
        "--encoding", default="utf-8", metavar="NAME", help="of --prompts; output is utf-8 (%(default)s)"
    )
    command.add_argument("--max-tokens", type=whole(1), default=100, metavar="N", help="of each text (%(default)s)")
    command.add_argument("--temperature", type=number(0.0), metavar="T", help="log P is divided by it (1)")
    command.add_argument("--top-k", type=whole(1), metavar="N", help="draw among the N likeliest tokens")
    command.add_argument(
        "--top-p", type=number(0.0, 1.0), metavar="P", help="draw among the likeliest that have this share"
    )
    command.add_argument("--samples", type=whole(1), metavar="N", help="texts of each prompt, the likeliest first")
    command.add_argument("--seed", type=whole(0, 2**63 - 1), metavar="N", help="of what is drawn (0)")
    command.add_argument("--beam", type=whole(1), metavar="N", help="search with N hypotheses in hand")
    command.add_argument(
        "--length-penalty", type=number(None), metavar="A", help="rank by log P / ((5 + length) / 6)^A (0: by log P)"
    )
    command.add_argument("--nbest", type=whole(1), metavar="N", help="of a beam, how many are shown (1)")
    command.add_argument("--allow-unk", action="store_true", help="allow the model to write <unk>")
    command.add_argument("--json", action="store_true", help="an object a prompt, one a line")
    command.add_argument(
        "--batch-size",
        type=whole(1),
        default=32,
        metavar="N",
        help="texts at a time; one prompt's at least (%(default)s)",
    )
    add_run_flags(command)
    return command
