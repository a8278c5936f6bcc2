"""A linear SVM over bags of n-grams that is trained on a stream of tokenised texts and stored as plain JSON."""

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
    """An SVM that is trained on texts one at a time or in batches, for as long as there are more.

    New labels and n-grams get weights when they first occur. The learning rate is constant, so the model follows
    labels that drift; see `LinearSvm` for the update. Each n-gram of a text has the value 1 / sqrt(number of tokens).

    Args:
        lengths: lengths of the n-grams, in tokens.
        buckets: number of hash buckets that share weights; None: every n-gram has its own weights.
        rate: learning rate.
        decay: weight decay per update, as a multiple of the rate.
    """

    def __init__(self, *, lengths: Sequence[int], buckets: int | None, rate: float, decay: float) -> None:
        if not lengths or min(lengths) < 1 or (buckets is not None and buckets < 1):
            raise ValueError(
                f"lengths={list(lengths)}, buckets={buckets}: give one or more lengths; lengths and buckets must be at "
                "least 1"
            )
        self.lengths, self.buckets, self.rate = tuple(lengths), buckets, rate
        self.labels: dict[str, int] = {}
        self.features: dict[str, int] = {}  # n-gram, or bucket number -> row of the weights
        self._svm = LinearSvm(0, 0, decay)

    def learn(self, texts: Sequence[Text], labels: Sequence[str]) -> None:
        """Make one update with these texts and their labels."""
        if len(texts) != len(labels) or not texts:
            raise ValueError(f"{len(texts)} texts and {len(labels)} labels; give one label per text, at least one text")
        label_ids = np.array([self.labels.setdefault(label, len(self.labels)) for label in labels])
        bags = [[self.features.setdefault(gram, len(self.features)) for gram in self._grams(text)] for text in texts]
        self._grow()
        self._svm.learn(self._rows(bags, texts), label_ids, self.rate)

    def predict(self, texts: Sequence[Text]) -> list[str]:
        """Return the label with the highest score for each text; among ties the label that occurred first."""
        if not self.labels:
            raise ValueError("the SVM has no labels yet; call learn first")
        names = list(self.labels)
        return [names[best] for best in self.scores(texts).argmax(axis=1)]

    def scores(self, texts: Sequence[Text]) -> FloatArray:
        """Return the scores (texts, labels), with labels in the order of `self.labels`."""
        known = self.features
        bags = [[known[gram] for gram in self._grams(text) if gram in known] for text in texts]
        return self._svm.scores(self._rows(bags, texts))

    def save(self, path: Path) -> None:
        """Write a JSON file with the labels and, in their order, the weights of each n-gram."""
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
        """Load a file written by `save`; training can continue from there.

        Raises:
            HydromelError: the file cannot be read or is not of this format.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.get("format") != FORMAT:
                raise ValueError(f"its format is {stored.get('format')!r}")
            return cls._of(stored)
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise HydromelError(f"{path}: not a linear SVM in the format {FORMAT} ({error})") from error

    @classmethod
    def _of(cls, stored: dict[str, Any]) -> OnlineSvm:
        svm = cls(lengths=stored["lengths"], buckets=stored["buckets"], rate=stored["rate"], decay=stored["decay"])
        svm.labels = {label: place for place, label in enumerate(stored["labels"])}
        svm.features = {gram: place for place, gram in enumerate(stored["weights"])}
        weights = np.array(list(stored["weights"].values()), dtype=np.float64)
        svm._svm = LinearSvm.of(weights.reshape(-1, len(svm.labels)), np.array(stored["bias"]), stored["decay"])
        return svm

    def _grams(self, text: Text) -> list[str]:
        grams = [" ".join(text[end - n : end]) for n in self.lengths for end in range(n, len(text) + 1)]
        return grams if self.buckets is None else [str(zlib.crc32(gram.encode()) % self.buckets) for gram in grams]

    def _rows(self, bags: Sequence[Sequence[int]], texts: Sequence[Text]) -> csr_array:
        sizes = [len(bag) for bag in bags]
        values = np.repeat([1.0 / np.sqrt(max(1, len(text))) for text in texts], sizes)
        columns = np.array([feature for bag in bags for feature in bag], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        return csr_array((values, columns, offsets), shape=(len(bags), self._svm.n_features))

    def _grow(self) -> None:
        """Make room for new n-grams and labels; doubling the features keeps the amortised cost of copying constant."""
        if len(self.features) > self._svm.n_features or len(self.labels) > len(self._svm.bias):
            self._svm.grow(2 * len(self.features), len(self.labels))
