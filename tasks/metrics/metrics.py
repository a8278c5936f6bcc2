"""Metrics: gathered on the device without waiting for it, computed once. Shares are percentages, 0-100; 0 / 0 is 0.

Shapes: N answers (rows, or real tokens), C possible answers, K span types. What the figures are does not depend on how
a split is cut into batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.inference.evaluation.tally import perplexity
from runner.ragged.batch import Batch
from runner.text.bpe import SPACE, characters_of
from runner.text.vocab import EOS, PAD, UNK, Vocab
from tasks.spans.schemes import Conversion
from tasks.spans.tags import Mode, Scheme, SpanTags, are_right, headline_mode, spans
from tasks.targets import answer_rows, answers


def precision_recall_f1(right: IntArray, predicted: IntArray, gold: IntArray) -> tuple[FloatArray, ...]:
    """Percentages from counts, elementwise; F1 = 2 right / (predicted + gold), van Rijsbergen 1979."""
    parts, wholes = (100.0 * right, 100.0 * right, 200.0 * right), (predicted, gold, predicted + gold)
    return tuple(part / np.maximum(whole, 1) for part, whole in zip(parts, wholes, strict=True))


def by_name(names: Sequence[str], right: IntArray, predicted: IntArray, gold: IntArray) -> dict[str, dict[str, Any]]:
    """`precision`, `recall`, `f1` (percent) and `support` (gold count) of each name."""
    columns = [*precision_recall_f1(right, predicted, gold), gold]
    keys = ("precision", "recall", "f1", "support")
    rows = zip(*(values.tolist() for values in columns), strict=True)
    return {name: dict(zip(keys, row, strict=True)) for name, row in zip(names, rows, strict=True)}


class LabelMetric:
    """Accuracy, F1 of each label and their mean, and the confusion matrix, from counts kept on the device.

    Args:
        labels: (C,) the names of the possible answers.
    """

    takes: Literal["answers"] = "answers"

    def __init__(self, *, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._counts: Tensor | None = None  # (C*C,) gold-major

    def update(self, said: Tensor, batch: Batch) -> None:
        if self._counts is None:
            self._counts = torch.zeros(len(self.labels) ** 2, dtype=torch.int64, device=said.device)
        # bincount would wait for the device
        cells = answers(batch) * len(self.labels) + said
        self._counts.index_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> dict[str, Any]:
        """`accuracy`, `macro_f1`, `per_class`, and `confusion` with gold labels as rows and predictions as columns.

        `macro_f1` is the unweighted mean over the labels that are gold or predicted at least once.
        """
        n_labels = len(self.labels)
        flat = np.zeros(n_labels**2, dtype=np.int64) if self._counts is None else self._counts.cpu().numpy()
        counts = flat.reshape(n_labels, n_labels)
        right, predicted, gold = np.diagonal(counts), counts.sum(axis=0), counts.sum(axis=1)
        f1 = precision_recall_f1(right, predicted, gold)[2]
        return {
            "accuracy": float(100.0 * right.sum() / max(1, counts.sum())),
            "macro_f1": float(f1.sum() / max(1, np.count_nonzero(predicted + gold))),
            "per_class": by_name(self.labels, right, predicted, gold),
            "confusion": {"labels": list(self.labels), "counts": counts.tolist()},
        }


class SpanMetric:
    """Token accuracy, and precision, recall and F1 of spans, as seqeval counts them in its default and strict mode.

    Args:
        tags: (C,) the possible tags.
        scheme: how tags form spans; `headline_mode` says how they are read for the headline figures.
        to_own: from the tags that a model learns and predicts to `tags`; None where they are the same.
    """

    takes: Literal["answers"] = "answers"

    def __init__(self, *, tags: Sequence[str], scheme: Scheme, to_own: Conversion | None = None) -> None:
        self.tags = SpanTags.of(tags)
        self.scheme = scheme
        self.to_own = to_own
        self.mode = headline_mode(scheme)
        self._gold: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._lengths: list[IntArray] = []

    def update(self, said: Tensor, batch: Batch) -> None:
        self._gold.append(answers(batch))
        self._predicted.append(said)
        self._lengths.append(answer_rows(batch).host_lengths)

    def compute(self) -> dict[str, Any]:
        """`accuracy`; `precision`, `recall`, `f1` of the headline mode, and the same with `_default` and `_strict`;
        `per_type` of the headline mode; `spans` says scheme and mode.
        """
        gold, predicted = _join(self._gold), _join(self._predicted)
        offsets = np.concatenate([[0], *self._lengths]).cumsum()
        if self.to_own is not None:
            gold, predicted = self.to_own(gold, offsets), self.to_own(predicted, offsets)
        figures: dict[str, Any] = {"accuracy": 100.0 * int((gold == predicted).sum()) / max(1, len(gold))}
        for mode in get_args(Mode):
            counts = self._counts(gold, predicted, offsets, mode)
            overall = precision_recall_f1(*(count.sum() for count in counts))
            named = dict(zip(("precision", "recall", "f1"), map(float, overall), strict=True))
            figures |= {f"{name}_{mode}": value for name, value in named.items()}
            if mode == self.mode:
                figures |= {**named, "per_type": by_name(self.tags.types, *counts)}
        return {**figures, "spans": {"scheme": self.scheme, "mode": self.mode}}

    def _counts(
        self, gold: IntArray, predicted: IntArray, offsets: IntArray, mode: Mode
    ) -> tuple[IntArray, IntArray, IntArray]:
        """(K,) spans of each type that are right (same start, end and type), predicted, and gold."""
        there, found = (spans(ids, offsets, self.tags, self.scheme, mode) for ids in (gold, predicted))
        types = (found[2][are_right(found, there, len(gold))], found[2], there[2])
        right, found_of, gold_of = (np.bincount(one, minlength=len(self.tags.types)) for one in types)
        return right, found_of, gold_of


class PieceCounts:
    """How many words and characters some pieces of words (`runner.text.bpe`) are, counted on the device.

    Args:
        feature: of inputs, whose vocabulary is that of the answers.
        vocab: (V,) pieces.
    """

    def __init__(self, feature: str, vocab: Vocab) -> None:
        self.feature, self.eos = feature, vocab.ids[EOS]
        ends = {PAD: (0, 0), UNK: (0, 0), EOS: (1, 1)}
        worth = [ends.get(one) or (one.count(SPACE), characters_of(one)) for one in vocab.tokens]
        self._worth = torch.tensor(worth, dtype=torch.int64)  # (V, 2)
        self._total: Tensor | None = None

    def add(self, batch: Batch) -> None:
        """The answers of a batch."""
        right, before = answers(batch), batch.features[self.feature].tokens()
        self._worth = self._worth.to(right.device, non_blocking=True)
        no_space = (before == self.eos) & (right != self.eos)  # a line's first word has none before it
        total = self._worth.index_select(0, right).sum(dim=0)
        total = total - torch.stack([torch.zeros_like(total[0]), no_space.sum()])
        self._total = total if self._total is None else self._total + total

    def compute(self) -> tuple[int, int]:
        """Words and characters."""
        words, characters = (0, 0) if self._total is None else self._total.tolist()
        return words, characters


class PerplexityMetric:
    """Mean negative log likelihood of a token, from one sum over all tokens: never a mean of batches' means.

    Args:
        per_character: tokens are characters, so that bits per token are bits per character.
        pieces: tokens are pieces of words, so that words and characters have to be counted.
    """

    takes: Literal["losses"] = "losses"

    def __init__(self, *, per_character: bool, pieces: PieceCounts | None = None) -> None:
        self.per_character, self.pieces = per_character, pieces
        self._total: Tensor | None = None  # nats, float64: its rounding does not depend on the batches
        self._count = 0

    def update(self, said: Tensor, batch: Batch) -> None:
        """(N,) nats."""
        self.add(said)
        if self.pieces is not None:
            self.pieces.add(batch)

    def add(self, nll: Tensor) -> None:
        """(N,) nats of N further tokens."""
        total = nll.detach().sum(dtype=torch.float64)
        self._total = total if self._total is None else self._total + total
        self._count += len(nll)

    def compute(self) -> dict[str, Any]:
        """`nll` (nats a token), `perplexity` (exp of it), and `bits_per_character` where tokens are characters.

        Where they are pieces of words, also `word_perplexity`, and `bits_per_character`: of the text as words with a
        space between them, a line end being one word and one character.

        Raises:
            HydromelError: there was no token.
        """
        if self._total is None or self._count == 0:
            raise HydromelError("perplexity of no tokens is undefined: this split has no rows")
        nll = float(self._total) / self._count
        figures = {"nll": nll, "perplexity": perplexity(nll)}
        if self.pieces is not None:
            words, characters = self.pieces.compute()
            total = float(self._total)
            return figures | {
                "word_perplexity": perplexity(total / words),
                "bits_per_character": total / characters / math.log(2),
            }
        return figures | ({"bits_per_character": nll / math.log(2)} if self.per_character else {})


def _join(parts: list[Tensor]) -> IntArray:
    """All parts as one array on the host: the one wait for the device."""
    joined: IntArray = torch.cat(parts or [torch.empty(0, dtype=torch.int64)]).cpu().numpy()
    return joined
