"""Metrics: accumulated on the device without synchronising, computed once. Shares are percentages, 0-100; 0 / 0 is 0.

The results do not depend on how a split is cut into batches.

Shapes: N targets (one per row, or one per real token), C classes, K span types.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.inference.evaluation.tally import perplexity
from runner.inference.outcomes import Outcomes
from runner.interfaces import InputKind, Scale
from runner.ragged.batch import Batch
from runner.ragged.scored import NO_PREDICTION
from runner.tables.detail import SCORES, pair_table
from runner.text.pieces import pieces_by, sizes_of
from runner.text.vocab import Vocab
from tasks.spans.errors import NONE
from tasks.spans.schemes import OwnTags
from tasks.spans.table import Mode, Scheme, headline_mode
from tasks.spans.tags import SpanArrays, SpanTags, are_right, spans
from tasks.targets import sum_per_row, target_ids, target_rows, token_vectors

PERCENT = Scale("%", higher_is_better=True)


def precision_recall_f1(right: IntArray, predicted: IntArray, gold: IntArray) -> tuple[FloatArray, ...]:
    """Return precision, recall and F1 in percent, elementwise; F1 = 2 right / (predicted + gold), Rijsbergen 1979."""
    parts, wholes = (100.0 * right, 100.0 * right, 200.0 * right), (predicted, gold, predicted + gold)
    return tuple(part / np.maximum(whole, 1) for part, whole in zip(parts, wholes, strict=True))


def by_name(names: Sequence[str], right: IntArray, predicted: IntArray, gold: IntArray) -> pa.Table:
    """Return the table `SCORES` of `names` (K,), from the counts (K,) of correct, predicted and gold ones."""
    scores = (*precision_recall_f1(right, predicted, gold), gold)
    return pa.table([pa.array(names, pa.string()), *map(pa.array, scores)], schema=SCORES)


class LabelMetric:
    """Accuracy, F1 per label and macro F1, and pairs of gold and predicted labels, from ids kept on the device."""

    scales: Mapping[str, Scale] = {"accuracy": PERCENT, "macro_f1": PERCENT}
    input_kind: InputKind = "predictions"

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        self.labels = vocabs["target"].tokens  # (C,)
        self._gold: list[Tensor] = []
        self._predicted: list[Tensor] = []

    def update(self, predicted: Tensor, batch: Batch) -> None:
        # Counts by pair would take C * C integers on the device, and finding distinct pairs there would synchronise.
        self._gold.append(target_ids(batch).to(torch.int32))
        self._predicted.append(predicted.to(torch.int32))

    def compute(self) -> dict[str, object]:
        """Return `accuracy`, `macro_f1` and the tables `per_class` (`SCORES`) and `confusion` (`PAIRS`).

        `macro_f1` is the unweighted mean over the labels that are gold or predicted at least once. If `max_length` cut
        targets off, the confusion's last label, `(none)`, stands for no prediction.
        """
        gold_ids, predicted_ids = (joined(parts) for parts in (self._gold, self._predicted))
        n_labels, is_right, made = len(self.labels), gold_ids == predicted_ids, predicted_ids != NO_PREDICTION
        counts = [np.bincount(ids, minlength=n_labels) for ids in (gold_ids[is_right], predicted_ids[made], gold_ids)]
        right, predicted, gold = counts
        f1 = precision_recall_f1(right, predicted, gold)[2]
        return {
            "accuracy": float(100.0 * right.sum() / max(1, len(gold_ids))),
            "macro_f1": float(f1.sum() / max(1, np.count_nonzero(predicted + gold))),
            "per_class": by_name(self.labels, right, predicted, gold),
            "confusion": pair_table([*self.labels, NONE], gold_ids, np.where(made, predicted_ids, n_labels)),
        }

    def outcomes(self, figure: str, values: IntArray, split: Batch) -> Outcomes | None:
        """Return the terms of accuracy; None for macro F1, which is not a sum over rows."""
        return accuracy_outcomes(target_ids(split).numpy(), values, split) if figure == "accuracy" else None


def joined(parts: Sequence[Tensor]) -> IntArray:
    """Return ids of several batches as one array (N,) on the host."""
    return np.asarray(torch.cat([*parts]).cpu() if parts else [], dtype=np.int64)


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
        self.own = OwnTags.of(vocabs["target"].tokens, self.learned_scheme, self.scheme)
        self.tags = SpanTags.of(self.own.tags, self.scheme)
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
        empty = [torch.empty(0, dtype=torch.int64)]
        both = torch.stack([torch.cat(self._gold or empty), torch.cat(self._predicted or empty)]).cpu().numpy()
        offsets = np.concatenate([[0], *self._lengths]).cumsum()
        # Convert both sides, so that figures do not depend on the scheme that the model learns.
        gold, predicted = (self.own.ids(ids, offsets) for ids in both)
        figures: dict[str, object] = {"accuracy": 100.0 * int((gold == predicted).sum()) / max(1, len(gold))}
        for mode in get_args(Mode):
            true, found = (spans(ids, offsets, self.tags, self.scheme, mode) for ids in (gold, predicted))
            # types of correct, predicted and gold spans
            types = (found[2][are_right(found, true, len(gold))], found[2], true[2])
            counts = [np.bincount(kinds, minlength=len(self.tags.types)) for kinds in types]
            overall = precision_recall_f1(*(count.sum() for count in counts))
            named = dict(zip(("precision", "recall", "f1"), map(float, overall), strict=True))
            figures |= {f"{name}_{mode}": value for name, value in named.items()}
            if mode == self.mode:
                figures |= {**named, "per_type": by_name(self.tags.names, *counts)}
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
        # Characters, if every string of the vocabulary is one (a line end is one too); pieces of words, if merged.
        self.per_character = all(len(string) == 1 for string in vocab.strings)
        self._total: Tensor | float = 0.0  # nats; float64, so that rounding does not depend on the batches
        self._count = 0
        self._eos = vocab.eos
        self._sizes: Tensor | None = None  # of each piece (V, 3), see `sizes_of`; None if words are not split
        self._text = torch.zeros(2, dtype=torch.int64)  # words and characters of all targets
        if (pieces := pieces_by(vocab)) is not None:
            self._sizes = torch.from_numpy(sizes_of(vocab, pieces))

    def update(self, nll: Tensor, batch: Batch) -> None:
        """Add the nats (N,) of a batch's targets."""
        self.add(nll)
        if self._sizes is not None:
            targets, inputs = target_ids(batch), token_vectors(batch.features[self.feature], batch)
            self._sizes = self._sizes.to(targets.device, non_blocking=True)
            sizes = self._sizes.index_select(0, targets)
            # Spaces are words, but the text has none before the first word of a line, which some tokenizers add.
            starts = (inputs == self._eos) & (targets != self._eos)
            added = (starts & (sizes[:, 2] == 1)).sum()
            text = sizes[:, :2].sum(dim=0) + torch.stack([starts.sum() - added, -added])
            self._text = self._text.to(targets.device, non_blocking=True) + text

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
        if self._sizes is not None:
            words, characters = self._text.tolist()
            figures["word_perplexity"] = perplexity(total / words)
            figures["bits_per_character"] = total / characters / math.log(2)
        elif self.per_character:
            figures["bits_per_character"] = nll / math.log(2)
        return figures

    def outcomes(self, figure: str, values: FloatArray, split: Batch) -> Outcomes | None:
        """Return the terms of `nll` or `perplexity`, for each line, or for each of the `blocks` of a stream."""
        if figure not in ("nll", "perplexity"):
            return None
        lengths = target_rows(split).host_lengths
        lengths = blocks(int(lengths.sum())) if self.stream else lengths
        return loss_outcomes(values, lengths, "exp" if figure == "perplexity" else "identity")


def accuracy_outcomes(gold: IntArray, predicted: IntArray, split: Batch) -> Outcomes:
    """Return the terms of accuracy in percent, from ids (N,): 100 for each correct target, and all targets."""
    correct = sum_per_row(torch.from_numpy(predicted == gold).long(), split).numpy()
    targets = sum_per_row(torch.ones(len(gold), dtype=torch.int64), split).numpy()
    return Outcomes(100 * correct, targets, targets)


def f1_outcomes(gold: SpanArrays, predicted: SpanArrays, offsets: IntArray) -> Outcomes:
    """Return the terms of F1 in percent, given the rows' offsets (B+1,): 200 correct / (predicted + gold spans)."""
    correct = predicted[0][are_right(predicted, gold, int(offsets[-1]))]

    # Starts are sorted, so the spans of a row are those between the ranks of its two offsets.
    def count_per_row(starts: IntArray) -> IntArray:
        return np.diff(np.searchsorted(starts, offsets)).astype(np.int64)

    n_gold = count_per_row(gold[0])
    return Outcomes(200 * count_per_row(correct), count_per_row(predicted[0]) + n_gold, n_gold)


def loss_outcomes(nats: FloatArray, lengths: IntArray, f: Literal["identity", "exp"]) -> Outcomes:
    """Return the nats and tokens of each row (or block) of `lengths` (n,), from the nats (N,) of each token."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return Outcomes(np.bincount(row, weights=nats, minlength=len(lengths)), lengths, lengths, f)


def blocks(n_tokens: int) -> IntArray:
    """Return the lengths (n,) of about sqrt(N) equal blocks, up to rounding, of a stream of N tokens.

    The tokens of a text are not independent examples; blocks nearly are. Longer blocks are less dependent, but there
    are fewer of them. sqrt(N) is longer than the N^(1/3) that suffices for short-range dependence (Hall, Horowitz and
    Jing 1995).
    """
    n_blocks = max(1, round(n_tokens**0.5))
    lengths: IntArray = np.diff(np.arange(n_blocks + 1) * n_tokens // n_blocks)
    return lengths
