"""Metrics: accumulated on the device without synchronising, computed once. Shares are percentages, 0-100; 0 / 0 is 0.

The results do not depend on how a split is cut into batches.

Shapes: N targets (one per row, or one per real token), C classes, K span types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.inference.evaluation.tally import perplexity
from runner.inference.outcomes import Outcomes
from runner.interfaces import InputKind, Scale
from runner.ragged.batch import Batch
from runner.text.bpe import SPACE, characters_of
from runner.text.vocab import EOS, PAD, UNK, Vocab
from tasks.metrics.example_scores import accuracy_outcomes, blocks, f1_outcomes, loss_outcomes
from tasks.spans.schemes import OwnTags
from tasks.spans.tags import Mode, Scheme, SpanTags, are_right, headline_mode, spans
from tasks.targets import target_ids, target_rows

PERCENT = Scale("%", higher_is_better=True)


def precision_recall_f1(right: IntArray, predicted: IntArray, gold: IntArray) -> tuple[FloatArray, ...]:
    """Return precision, recall and F1 in percent, elementwise; F1 = 2 right / (predicted + gold), Rijsbergen 1979."""
    parts, wholes = (100.0 * right, 100.0 * right, 200.0 * right), (predicted, gold, predicted + gold)
    return tuple(part / np.maximum(whole, 1) for part, whole in zip(parts, wholes, strict=True))


def by_name(names: Sequence[str], right: IntArray, predicted: IntArray, gold: IntArray) -> dict[str, dict[str, object]]:
    """Return `precision`, `recall`, `f1` (percent) and `support` (gold count) of each name."""
    columns = [*precision_recall_f1(right, predicted, gold), gold]
    keys = ("precision", "recall", "f1", "support")
    rows = zip(*(values.tolist() for values in columns), strict=True)
    return {name: dict(zip(keys, row, strict=True)) for name, row in zip(names, rows, strict=True)}


class LabelMetric:
    """Accuracy, F1 per label and macro F1, and the confusion matrix, from counts kept on the device."""

    scales: Mapping[str, Scale] = {"accuracy": PERCENT, "macro_f1": PERCENT}
    input_kind: InputKind = "predictions"

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        self.labels = vocabs["target"].tokens  # (C,)
        self._counts: Tensor | None = None  # (C*C,) gold-major

    def update(self, predicted: Tensor, batch: Batch) -> None:
        if self._counts is None:
            self._counts = torch.zeros(len(self.labels) ** 2, dtype=torch.int64, device=predicted.device)
        # `bincount` synchronises with the device to find its output size; `index_add_` does not.
        cells = target_ids(batch) * len(self.labels) + predicted
        self._counts.index_add_(0, cells, torch.ones_like(cells))

    def compute(self) -> dict[str, object]:
        """Return `accuracy`, `macro_f1`, `per_class`, and `confusion` (gold labels as rows, predictions as columns).

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

    def outcomes(self, figure: str, values: IntArray, split: Batch) -> Outcomes | None:
        """Return the terms of accuracy; None for macro F1, which is not a sum over rows."""
        return accuracy_outcomes(target_ids(split).numpy(), values, split) if figure == "accuracy" else None


class SpanMetric:
    """Token accuracy, and precision, recall and F1 of spans, as in seqeval's default and strict modes.

    Args:
        scheme: how the data set's tags encode spans; `headline_mode` chooses the mode of the headline figures.
        learned_scheme: the scheme of the tags that the model predicts.
    """

    scales: Mapping[str, Scale] = dict.fromkeys(
        [f"{name}{mode}" for mode in ("", "_default", "_strict") for name in ("f1", "precision", "recall")]
        + ["accuracy"],
        PERCENT,
    )
    input_kind: InputKind = "predictions"

    def __init__(self, *, scheme: Scheme, learned_scheme: Scheme) -> None:
        self.scheme, self.learned_scheme = scheme, learned_scheme
        self.mode = headline_mode(scheme)

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        learned = vocabs["target"].tokens
        self.own = OwnTags.of(learned, self.learned_scheme, self.scheme)
        self.tags = SpanTags.of(self.own.tags)
        self._gold: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._lengths: list[IntArray] = []

    def update(self, predicted: Tensor, batch: Batch) -> None:
        self._gold.append(target_ids(batch))
        self._predicted.append(predicted)
        self._lengths.append(target_rows(batch).host_lengths)

    def compute(self) -> dict[str, object]:
        """Return the metrics of all targets so far.

        They are `accuracy`; `precision`, `recall` and `f1` of the headline mode, and of both modes with the suffixes
        `_default` and `_strict`; `per_type` of the headline mode; and `spans`, the scheme and the headline mode.
        """
        gold, predicted = _join(self._gold), _join(self._predicted)
        offsets = np.concatenate([[0], *self._lengths]).cumsum()
        # Convert both sides, so that figures do not depend on the scheme that the model learns.
        gold, predicted = self.own.ids(gold, offsets), self.own.ids(predicted, offsets)
        figures: dict[str, object] = {"accuracy": 100.0 * int((gold == predicted).sum()) / max(1, len(gold))}
        for mode in get_args(Mode):
            counts = self._counts(gold, predicted, offsets, mode)
            overall = precision_recall_f1(*(count.sum() for count in counts))
            named = dict(zip(("precision", "recall", "f1"), map(float, overall), strict=True))
            figures |= {f"{name}_{mode}": value for name, value in named.items()}
            if mode == self.mode:
                figures |= {**named, "per_type": by_name(self.tags.types, *counts)}
        return {**figures, "spans": {"scheme": self.scheme, "mode": self.mode}}

    def outcomes(self, figure: str, values: IntArray, split: Batch) -> Outcomes | None:
        """Return the terms of accuracy, or of the headline F1; None for other figures."""
        offsets = target_rows(split).host_offsets
        gold, predicted = (self.own.ids(ids, offsets) for ids in (target_ids(split).numpy(), values))
        if figure == "accuracy":
            return accuracy_outcomes(gold, predicted, split)
        if figure != "f1":
            return None
        found = [spans(ids, offsets, self.tags, self.scheme, self.mode) for ids in (gold, predicted)]
        return f1_outcomes(found[0], found[1], offsets)

    def _counts(
        self, gold: IntArray, predicted: IntArray, offsets: IntArray, mode: Mode
    ) -> tuple[IntArray, IntArray, IntArray]:
        """Return the number of correct (same start, end and type), predicted and gold spans of each type: (K,) each."""
        gold_spans, predicted_spans = (spans(ids, offsets, self.tags, self.scheme, mode) for ids in (gold, predicted))
        correct = are_right(predicted_spans, gold_spans, len(gold))
        types = (predicted_spans[2][correct], predicted_spans[2], gold_spans[2])
        n_correct, n_predicted, n_gold = (np.bincount(kinds, minlength=len(self.tags.types)) for kinds in types)
        return n_correct, n_predicted, n_gold


class PieceCounts:
    """A count of the words and characters that subword tokens (`runner.text.bpe`) represent, kept on the device.

    Args:
        feature: the input feature with the same vocabulary as the targets.
        vocab: the vocabulary of V pieces.
    """

    def __init__(self, feature: str, vocab: Vocab) -> None:
        self.feature, self.eos = feature, vocab.ids[EOS]
        ends = {PAD: (0, 0), UNK: (0, 0), EOS: (1, 1)}
        counts = [ends.get(piece) or (piece.count(SPACE), characters_of(piece)) for piece in vocab.tokens]
        self._counts = torch.tensor(counts, dtype=torch.int64)  # (V, 2): words and characters of each piece
        self._total: Tensor | None = None

    def add(self, batch: Batch) -> None:
        """Add the targets of a batch."""
        targets, inputs = target_ids(batch), batch.features[self.feature].tokens()
        self._counts = self._counts.to(targets.device, non_blocking=True)
        # A word's first piece includes the space before it, which the text lacks at the start of a line.
        no_space = (inputs == self.eos) & (targets != self.eos)
        total = self._counts.index_select(0, targets).sum(dim=0)
        total = total - torch.stack([torch.zeros_like(total[0]), no_space.sum()])
        self._total = total if self._total is None else self._total + total

    def compute(self) -> tuple[int, int]:
        """Return the number of words and of characters."""
        words, characters = (0, 0) if self._total is None else self._total.tolist()
        return words, characters


class PerplexityMetric:
    """Mean negative log likelihood per token, from one sum over all tokens, never from the means of batches.

    Args:
        feature: the input feature with the same vocabulary as the targets.
        stream: True if a split is one text in one row, not independent rows.
    """

    scales: Mapping[str, Scale] = {
        "perplexity": Scale("", higher_is_better=False),
        "nll": Scale("nats", higher_is_better=False),
        "word_perplexity": Scale("", higher_is_better=False),
        "bits_per_character": Scale("bits", higher_is_better=False),
    }
    input_kind: InputKind = "losses"

    def __init__(self, *, feature: str, stream: bool) -> None:
        self.feature, self.stream = feature, stream

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        vocab = vocabs["target"]
        # Characters, if every string of the vocabulary is one (`<eos>` is the line end); pieces of words, if merged.
        self.per_character = all(len(string) == 1 for string in set(vocab.tokens) - {PAD, UNK, EOS})
        self.pieces = None if vocab.merges is None else PieceCounts(self.feature, vocab)
        self._total: Tensor | float = 0.0  # nats; float64, so that rounding does not depend on the batches
        self._count = 0

    def update(self, nll: Tensor, batch: Batch) -> None:
        """Add the nats (N,) of a batch's targets."""
        self.add(nll)
        if self.pieces is not None:
            self.pieces.add(batch)

    def add(self, nll: Tensor) -> None:
        """Add the nats (N,) of N more tokens."""
        self._total = self._total + nll.detach().sum(dtype=torch.float64)
        self._count += len(nll)

    def compute(self) -> dict[str, object]:
        """Return `nll` (nats per token), `perplexity` (its exponential), and `bits_per_character` if it is defined.

        It is defined if tokens are characters, or pieces of words, which also have a `word_perplexity`. For pieces the
        text counts as words separated by one space, and a line end as one word and one character.

        Raises:
            HydromelError: no token was added.
        """
        if self._count == 0:
            raise HydromelError("perplexity is undefined: this split has no rows; use a split with at least one")
        total = float(self._total)
        nll = total / self._count
        figures: dict[str, object] = {"nll": nll, "perplexity": perplexity(nll)}
        if self.pieces is not None:
            words, characters = self.pieces.compute()
            return figures | {
                "word_perplexity": perplexity(total / words),
                "bits_per_character": total / characters / math.log(2),
            }
        return figures | ({"bits_per_character": nll / math.log(2)} if self.per_character else {})

    def outcomes(self, figure: str, values: FloatArray, split: Batch) -> Outcomes | None:
        """Return the terms of `nll` or `perplexity`, for each line, or for each of the `blocks` of a stream."""
        if figure not in ("nll", "perplexity"):
            return None
        lengths = target_rows(split).host_lengths
        lengths = blocks(int(lengths.sum())) if self.stream else lengths
        return loss_outcomes(values, lengths, "exp" if figure == "perplexity" else "identity")


def _join(parts: list[Tensor]) -> IntArray:
    """Return all parts as one array on the host; this is the only synchronisation with the device."""
    joined: IntArray = torch.cat(parts or [torch.empty(0, dtype=torch.int64)]).cpu().numpy()
    return joined
