"""The command `hydromel-generate`: continue prompts with a trained language model."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.run_arguments import RUN_HELP, add_run_flags, check_run, loaded
from runner.cli.text_io import STDIO, lines_of, print_data, stdout_errors
from runner.common.errors import HydromelError
from runner.common.imports import importing
from runner.common.run_names import run_name
from runner.inference.generation.generate import OPTION_NAMES, GenerationOptions
from runner.terminal.command_line import Parser, exit_code, number

if TYPE_CHECKING:
    from runner.inference.generation.language_model import LanguageModel, Prompts
    from runner.inference.generation.sampling import Continuation

log = logging.getLogger(__name__)

_EXAMPLES = """examples:
  hydromel-generate RUN prompt="def main("                               always the likeliest token
  hydromel-generate RUN prompt="KING:" --temperature 0.8 --top-p 0.95    sampled, and shown token by token
  hydromel-generate RUN --samples 5 --top-k 40 --seed 7                  five texts, the likeliest first
  hydromel-generate RUN --prompts lines.txt --beam 8 --nbest 3 --json    beam search, one prompt per line

exit codes: 0, 1 (an error, in one line), 130 (interrupted), 141 (the output was closed).
See docs/language_models.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return exit_code(lambda: _checked(parser().parse_intermixed_args(arguments)))


def _checked(options: argparse.Namespace) -> int:
    _check(options)
    wanted = GenerationOptions(**{name: getattr(options, name) for name in OPTION_NAMES})
    wanted.check(_flag)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # the model can write any character, whatever the locale
    with stdout_errors():  # errors of files are reported where they are opened
        _generate(options, wanted)
    return 0


def _generate(options: argparse.Namespace, wanted: GenerationOptions) -> None:
    check_run(options)
    with importing():
        # imports torch, which --help and the message for a mistyped option should not wait for
        from runner.inference.generation.language_model import LanguageModel
        from runner.inference.trained import TrainedModel

    model = LanguageModel(loaded(options, TrainedModel.load), options.run, options.allow_unk)
    samples = options.samples or 1
    is_single = len(options.prompt) == 1 and samples == 1
    if is_single and options.beam is None and not options.json:
        _stream(model, options, wanted)
        return
    many = options.beam is not None or options.samples is not None
    n_prompts, texts_left = 0, iter(_prompts(options))
    while texts := list(itertools.islice(texts_left, wanted.at_a_time(options.batch_size))):
        prompts = _read(model, texts, n_prompts)
        results = wanted.continued(model, prompts, n_prompts)
        for text, unknown, continuations in zip(texts, prompts.unknown, results, strict=True):
            n_prompts += 1
            if options.json:
                print_data(json.dumps(_as_plain(model, text, unknown, continuations), ensure_ascii=False))
                continue
            for place, continuation in enumerate(continuations, start=1):
                if many or model.end is None:
                    head = f"# prompt {n_prompts}, {place} of {len(continuations)}"
                    print_data(f"{head}: {_figures(continuation, options)}")
                print_data(text + model.text.joined(model.strings(continuation.tokens), behind=text))


def _stream(model: LanguageModel, options: argparse.Namespace, wanted: GenerationOptions) -> None:
    """Print a single text token by token."""
    from runner.inference.generation.sampling import steps

    (text,) = options.prompt
    drawn = steps(model, _read(model, [text], 0), 1, wanted.choice(model, [0]), options.max_tokens)
    tokens = (int(step.tokens[0]) for step in drawn)
    strings = (string for token in tokens if token != model.end for string in model.strings([token]))
    try:
        for piece in itertools.chain([text], model.text.pieces(strings, behind=text)):
            print_data(piece, end="")
    finally:  # an error message starts on a new line
        print_data("")


def _read(model: LanguageModel, texts: list[str], first: int) -> Prompts:
    """Return the prompts as integers; a warning names tokens that the model does not know."""
    from runner.inference.generation.language_model import shown

    prompts = model.prompts(texts)
    for place, unknown in enumerate(prompts.unknown, start=first + 1):
        if unknown:
            log.warning("warning: prompt %d: unknown tokens, read as <unk>: %s", place, shown(unknown))
    return prompts


def _prompts(options: argparse.Namespace) -> Iterable[str]:
    """Return the prompts of the command line, or the lines of the file `--prompts`."""
    _, lines = lines_of(options.prompts or STDIO, options.encoding, "--prompts")
    return options.prompt if options.prompts is None else lines


def _figures(continuation: Continuation, options: argparse.Namespace) -> str:
    score = f", score {continuation.score:.4f}" if options.length_penalty else ""
    return f"log P {continuation.log_p:.4f}{score}, {len(continuation.tokens) + continuation.ended} tokens"


def _as_plain(
    model: LanguageModel, text: str, unknown: list[str], continuations: list[Continuation]
) -> dict[str, object]:
    records = []
    for continuation in continuations:
        tokens, strings = model.vocab.decode(continuation.tokens), model.strings(continuation.tokens)
        figures = {"log_p": continuation.log_p, "score": continuation.score, "ended": continuation.ended}
        records.append({"text": model.text.joined(strings, behind=text), "tokens": tokens, **figures})
    return {"prompt": text, "unknown": unknown, "continuations": records}


def _check(options: argparse.Namespace) -> None:
    """Set `run` and `prompt` from the positional arguments; raise HydromelError for flags that exclude each other."""
    options.run, options.prompt = None, []
    for word in options.words:
        name, equals, value = word.partition("=")
        if name == "prompt" and equals:
            options.prompt.append(_as_utf_8(value))
        elif options.run is None:
            options.run = run_name(word)
        else:
            raise HydromelError(f"'{word}': give one run, and each text as prompt=\"...\"")
    if options.run is None:
        raise HydromelError("no run was named; give its folder, name or id; see hydromel-generate --help")
    if options.prompt and options.prompts is not None:
        raise HydromelError("prompt= and --prompts exclude each other; give one of them")
    if options.prompts is None and not options.prompt:
        options.prompt = [""]


def _as_utf_8(argument: str) -> str:
    """Return an argument decoded as UTF-8, whatever the locale."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise HydromelError("prompt= is not UTF-8; use --prompts FILE --encoding NAME for other encodings") from None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def parser() -> argparse.ArgumentParser:
    command = Parser(
        prog="hydromel-generate",
        description="Continue prompts with the best checkpoint of a run of task=lm: with the likeliest token at each "
        "step, by sampling (--temperature, --top-k, --top-p, --samples) or by beam search (--beam).",
        epilog=_EXAMPLES,
    )
    add, count = command.add_argument, command.add_count
    add("words", nargs="*", metavar="RUN prompt=TEXT", help=f"{RUN_HELP}; and any number of prompts")
    add("--prompts", type=Path, metavar="FILE", help="file with one prompt per line, plain or gzip (-: stdin)")
    encoding = "encoding of --prompts (default: %(default)s); output is utf-8"
    add("--encoding", default="utf-8", metavar="NAME", help=encoding)
    count("--max-tokens", "maximum tokens per text", 100)
    add("--temperature", type=number(0.0), metavar="T", help="divide log P by T (default: 1)")
    count("--top-k", "sample among the N likeliest tokens")
    top_p = "sample among the likeliest tokens whose probabilities sum to P"
    add("--top-p", type=number(0.0, 1.0), metavar="P", help=top_p)
    count("--samples", "sample N texts per prompt, the likeliest first")
    count("--seed", "random seed of sampling (default: 0)", least=0, most=2**63 - 1)
    count("--beam", "beam search with N hypotheses")
    penalty = "rank by log P / ((5 + length) / 6)^A (default: 0, by log P)"
    add("--length-penalty", type=number(None), metavar="A", help=penalty)
    count("--nbest", "texts shown per beam search (default: 1)")
    add("--allow-unk", action="store_true", help="allow <unk> in generated text")
    add("--json", action="store_true", help="print one JSON object per prompt, one per line")
    count("--batch-size", "texts per batch, at least those of one prompt", 32)
    add_run_flags(command)
    return command


if __name__ == "__main__":
    sys.exit(main())
