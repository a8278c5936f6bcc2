"""The command `hydromel-generate`: continue prompts with a trained language model."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.generate_options import check, draws, parser
from runner.cli.run_arguments import loaded
from runner.cli.text_io import reading
from runner.common.command_line import exit_code
from runner.common.errors import HydromelError

if TYPE_CHECKING:
    from runner.inference.generation.language_model import LanguageModel, Prompts
    from runner.inference.generation.sampling import Choice, Continuation

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return exit_code(lambda: _checked(parser().parse_intermixed_args(arguments)))


def _checked(options: argparse.Namespace) -> int:
    check(options)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # the model can write any character, whatever the locale
    try:
        _generate(options)
    except OSError as error:  # an error of stdout; errors of files are reported where they are opened
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again when it exits
        if isinstance(error, BrokenPipeError):
            raise
        raise HydromelError(f"cannot write stdout: {error.strerror}") from error
    return 0


def _generate(options: argparse.Namespace) -> None:
    model = _load(options)
    is_single = len(options.prompt) == 1 and _samples_per_prompt(options) == 1
    if is_single and options.beam is None and not options.json:
        _stream(model, options)
        return
    many = options.beam is not None or options.samples is not None
    at_a_time = max(1, options.batch_size // max(_samples_per_prompt(options), options.beam or 1))
    number = 0
    for texts in _batches(_prompts(options), at_a_time):
        prompts = _read(model, texts, number)
        results = _continued(model, prompts, options, number)
        for text, unknown, continuations in zip(texts, prompts.unknown, results, strict=True):
            number += 1
            if options.json:
                print(json.dumps(_as_plain(model, text, unknown, continuations), ensure_ascii=False))
                continue
            for place, continuation in enumerate(continuations, start=1):
                if many or model.end is None:
                    print(f"# prompt {number}, {place} of {len(continuations)}: {_figures(continuation, options)}")
                print(text + model.text.joined(model.vocab.decode(continuation.tokens), behind=text))
        sys.stdout.flush()


def _stream(model: LanguageModel, options: argparse.Namespace) -> None:
    """Print a single text token by token."""
    from runner.inference.generation.sampling import steps

    (text,) = options.prompt
    prompts = _read(model, [text], 0)
    choose = _choice(options, [0], model)
    drawn = steps(model, prompts, 1, choose, options.max_tokens)
    tokens = (int(step.tokens[0]) for step in drawn)
    strings = (model.vocab.tokens[token] for token in tokens if token != model.end)
    try:
        for piece in itertools.chain([text], model.text.pieces(strings, behind=text)):
            print(piece, end="", flush=True)
    finally:  # an error message starts on a new line
        print(flush=True)


def _continued(
    model: LanguageModel, prompts: Prompts, options: argparse.Namespace, first: int
) -> list[list[Continuation]]:
    from runner.inference.generation.beam import Beam, beam_search
    from runner.inference.generation.sampling import collect, steps

    if options.beam is not None:
        beam = Beam(options.beam, options.length_penalty or 0.0, options.nbest or 1)
        return beam_search(model, prompts, beam, options.max_tokens)
    samples = _samples_per_prompt(options)
    choose = _choice(options, range(first, first + len(prompts)), model)
    return collect(steps(model, prompts, samples, choose, options.max_tokens), model, len(prompts), samples)


def _choice(options: argparse.Namespace, numbers: Sequence[int], model: LanguageModel) -> Choice:
    from runner.inference.generation.sampling import Sampling, keys_of, likeliest

    if not draws(options):
        return likeliest
    keys = keys_of(options.seed or 0, numbers, _samples_per_prompt(options), model.device)
    return Sampling(keys, 1.0 if options.temperature is None else options.temperature, options.top_k, options.top_p)


def _read(model: LanguageModel, texts: list[str], first: int) -> Prompts:
    """Return the prompts as integers; a warning names tokens that the model does not know."""
    from runner.inference.generation.language_model import shown

    prompts = model.prompts(texts)
    for place, unknown in enumerate(prompts.unknown, start=first + 1):
        if unknown:
            log.warning("warning: prompt %d: unknown tokens, read as <unk>: %s", place, shown(unknown))
    return prompts


def _prompts(options: argparse.Namespace) -> Iterator[str]:
    """Yield the prompts of the command line, or the lines of the file `--prompts`."""
    from runner.text.formats.reader import check_encoding, read_lines

    check_encoding(options.encoding)
    if options.prompts is None:
        yield from options.prompt
        return
    with reading(Path(options.prompts), "--prompts") as source:
        yield from read_lines(source, "stdin" if options.prompts == "-" else options.prompts, options.encoding)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    return iter(lambda: list(itertools.islice(iterator, size)), [])


def _figures(continuation: Continuation, options: argparse.Namespace) -> str:
    score = f", score {continuation.score:.4f}" if options.length_penalty else ""
    return f"log P {continuation.log_p:.4f}{score}, {len(continuation.tokens) + continuation.ended} tokens"


def _as_plain(
    model: LanguageModel, text: str, unknown: list[str], continuations: list[Continuation]
) -> dict[str, object]:
    records = []
    for continuation in continuations:
        tokens = model.vocab.decode(continuation.tokens)
        figures = {"log_p": continuation.log_p, "score": continuation.score, "ended": continuation.ended}
        records.append({"text": model.text.joined(tokens, behind=text), "tokens": tokens, **figures})
    return {"prompt": text, "unknown": unknown, "continuations": records}


def _load(options: argparse.Namespace) -> LanguageModel:
    # imports torch, which --help and the message for a mistyped option should not wait for
    from runner.inference.generation.language_model import LanguageModel
    from runner.inference.trained import TrainedModel

    return LanguageModel(loaded(options, TrainedModel.load), options.run, options.allow_unk)


def _samples_per_prompt(options: argparse.Namespace) -> int:
    return options.samples or 1


if __name__ == "__main__":
    sys.exit(main())
