"""Small language models that have learned nothing, of any encoder, and what they say by evaluation, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import torch

from runner.audit.checks.tolerance import Tolerance, operations, roundoff
from runner.data.numericalize import columns_of
from runner.data.truncation import Truncation
from runner.inference.generation.language_model import LanguageModel
from runner.inference.trained import TrainedModel
from runner.model import build_model
from runner.text.vocab import EOS, SPECIALS, Vocab
from tests.helpers.composed import parts, run_config

WORDS = ("a", "b", "c")
SIZES = {
    "lstm": ["encoder.hidden=6"],
    "conv": ["encoder.filters=4", "encoder.layers=2"],
    "transformer": ["encoder.size=8", "encoder.heads=2", "encoder.feedforward=8"],
    "none": [],
}


def trained(encoder: str, *overrides: str, words: Sequence[str] = WORDS, ending: float = -2.0) -> TrainedModel:
    """In float64; it is as if `<eos>` were exp(`ending`) times as likely as any word, before the context speaks."""
    files = ("dataset=text", "data_dir=nowhere", *(f"dataset.{item}={item}.txt" for item in ("train", "valid", "test")))
    size = [] if "embedding=word_char" in overrides else ["embedding.size=5"]
    composed = run_config("task=lm", *files, f"encoder={encoder}", *SIZES[encoder], *size, *overrides)
    vocab = Vocab((*words,), SPECIALS)
    result = parts(composed)
    table = pa.table({"tokens": pa.array([list(words)])})
    vocabs = {name: vocab if name == "words" else feature.vocab([table]) for name, feature in result.features.items()}
    vocabs["target"] = vocab
    torch.manual_seed(3)
    model = build_model(result, vocabs).double().eval()
    with torch.no_grad():
        model.head.output.weight.mul_(8.0)  # type: ignore[attr-defined]
        model.head.output.bias[vocab.eos] += ending  # type: ignore[attr-defined]
    truncation = Truncation(composed.max_length, composed.truncate)
    return TrainedModel(
        result.task, result.measures, model, result.features, vocabs, result.corpus, truncation, composed.malloc
    )


def language_model(run: TrainedModel, allow_unk: bool = False) -> LanguageModel:
    return LanguageModel(run, "run", allow_unk)


def log_p_of(run: TrainedModel, words: Sequence[str]) -> npt.NDArray[Any]:
    """(n + 1, V) log P of what is next, `<eos>` and the n words being read at once, as the task evaluates them.

    In a stream, `<eos>` among the words ends a line.
    """
    lines: list[list[str]] = [[]]
    for word in words:
        if word == EOS:
            lines.append([])
        else:
            lines[-1].append(word)
    table = pa.table({"tokens": pa.array(lines, pa.list_(pa.string()))})
    batch = run.task.encode(columns_of(table, run.features, run.vocabs), table, run.vocabs)
    with torch.inference_mode():
        scores, _ = run.model(batch, None)
        return run.model.head.probabilities(scores, batch).log().numpy()


def ids_of(run: TrainedModel) -> dict[str, int]:
    """Return the ids of the words of `run`, and of `<eos>`."""
    vocab = run.vocabs["target"]
    return {**vocab.ids, EOS: vocab.eos}


def rounding(model: LanguageModel, log_p: float, tokens: int = 16) -> float:
    """Return the largest rounding difference of log P of one text between batches, in float64."""
    module = model.model
    return Tolerance(roundoff(torch.float64), operations(module, tokens)).of(max(1.0, abs(log_p)))
