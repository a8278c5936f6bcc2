"""A linear SVM of bags of n-grams that learns from a stream of tokenised texts, and is stored as plain JSON."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from runner.common.arrays import FloatArray
from runner.common.errors import HydromelError
from runner.common.files import write_text
from tasks.baselines.linear_svm import LinearSvm

FORMAT = "hydromel-linear-svm-1"
Text = Sequence[str]


class OnlineSvm:
    """Learns labels of texts, one at a time or in batches, and goes on for as long as there are more.

    Labels and n-grams that are new get weights when first learned. The rate does not fall, so it follows labels
    that drift; `LinearSvm` says what an update does. A text's n-grams count 1 / root of its number of tokens each.

    Args:
        lengths: of n-grams, in tokens.
        buckets: n-grams share so many weights by their hash; None: each has its own.
        rate: of learning.
        decay: of the weights, at each update, times the rate.
    """

    def __init__(self, *, lengths: Sequence[int], buckets: int | None, rate: float, decay: float) -> None:
        if not lengths or min(lengths) < 1 or (buckets is not None and buckets < 1):
            raise ValueError(f"lengths={list(lengths)}, buckets={buckets}: lengths and buckets must be at least 1")
        self.lengths, self.buckets, self.rate = tuple(lengths), buckets, rate
        self.labels: dict[str, int] = {}
        self.features: dict[str, int] = {}  # n-gram, or number of a bucket -> row of weights
        self._svm = LinearSvm(0, 0, decay)

    def learn(self, texts: Sequence[Text], labels: Sequence[str]) -> None:
        """One update by these texts and their labels."""
        if len(texts) != len(labels) or not texts:
            raise ValueError(f"{len(texts)} texts and {len(labels)} labels; need as many of both, at least one")
        right = np.array([self.labels.setdefault(label, len(self.labels)) for label in labels])
        bags = [[self.features.setdefault(gram, len(self.features)) for gram in self._grams(text)] for text in texts]
        self._make_room()
        self._svm.learn(self._rows(bags, texts), right, self.rate)

    def predict(self, texts: Sequence[Text]) -> list[str]:
        """The label of the highest score of each text; of equal ones that which was learned first."""
        if not self.labels:
            raise ValueError("nothing has been learned yet")
        names = list(self.labels)
        return [names[best] for best in self.scores(texts).argmax(axis=1)]

    def scores(self, texts: Sequence[Text]) -> FloatArray:
        """(texts, labels), labels in the order of `self.labels`."""
        known = self.features
        bags = [[known[gram] for gram in self._grams(text) if gram in known] for text in texts]
        return self._svm.scores(self._rows(bags, texts))

    def save(self, path: Path) -> None:
        """As JSON: labels, and the weights of each n-gram in their order."""
        weights = self._svm.weights
        content = {
            "format": FORMAT,
            "lengths": self.lengths,
            "buckets": self.buckets,
            "rate": self.rate,
            "decay": self._svm.decay,
            "labels": list(self.labels),
            "bias": self._svm.bias.tolist(),
            "weights": {gram: weights[place].tolist() for gram, place in self.features.items()},
        }
        write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> OnlineSvm:
        """What `save` wrote; it goes on learning from there.

        Raises:
            HydromelError: a file that is no such thing.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.get("format") != FORMAT:
                raise ValueError(f"its format is {stored.get('format')!r}")
            return cls._of(stored)
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise HydromelError(f"{path}: no linear SVM of the format {FORMAT} ({error})") from error

    @classmethod
    def _of(cls, stored: dict[str, Any]) -> OnlineSvm:
        made = cls(lengths=stored["lengths"], buckets=stored["buckets"], rate=stored["rate"], decay=stored["decay"])
        made.labels = {label: place for place, label in enumerate(stored["labels"])}
        made.features = {gram: place for place, gram in enumerate(stored["weights"])}
        weights = np.array(list(stored["weights"].values()), dtype=np.float64)
        made._svm = LinearSvm.of(weights.reshape(-1, len(made.labels)), np.array(stored["bias"]), stored["decay"])
        return made

    def _grams(self, text: Text) -> list[str]:
        grams = [" ".join(text[end - n : end]) for n in self.lengths for end in range(n, len(text) + 1)]
        return grams if self.buckets is None else [str(zlib.crc32(gram.encode()) % self.buckets) for gram in grams]

    def _rows(self, bags: Sequence[Sequence[int]], texts: Sequence[Text]) -> csr_array:
        sizes = [len(bag) for bag in bags]
        values = np.repeat([1.0 / np.sqrt(max(1, len(text))) for text in texts], sizes)
        columns = np.array([one for bag in bags for one in bag], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        return csr_array((values, columns, offsets), shape=(len(bags), self._svm.n_features))

    def _make_room(self) -> None:
        """For new n-grams and labels; twice what is needed, so that growing costs little in all."""
        if len(self.features) > self._svm.n_features or len(self.labels) > len(self._svm.bias):
            self._svm.grow(2 * len(self.features), len(self.labels))
