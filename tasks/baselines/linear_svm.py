"""A linear support vector machine over sparse rows, one label against the rest, learned online by its margin test.

Shapes: B rows, F features, C labels.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from runner.common.arrays import FloatArray, IntArray

_SMALLEST_SCALE = 1e-6


class LinearSvm:
    """Weights of labels and features, learned by stochastic gradient descent on the hinge loss with an L2 term.

    As in Pegasos (Shalev-Shwartz et al. 2007) but for the rate of learning, which is the caller's: one that does not
    fall lets the model follow labels that drift. All weights decay at each update; that is done by one number, so
    an update costs what its rows hold and not F.

    Args:
        n_features: F.
        n_labels: C.
        decay: lambda, the weight of the L2 term; of the bias too.
    """

    def __init__(self, n_features: int, n_labels: int, decay: float) -> None:
        self.decay = decay
        self.bias = np.zeros(n_labels)
        self._scaled, self._scale = np.zeros((n_features, n_labels)), 1.0

    @classmethod
    def of(cls, weights: FloatArray, bias: FloatArray, decay: float) -> LinearSvm:
        """One that has learned: weights (F, C), bias (C,)."""
        made = cls(len(weights), len(bias), decay)
        made._scaled, made.bias = weights, bias
        return made

    @property
    def n_features(self) -> int:
        return len(self._scaled)

    @property
    def weights(self) -> FloatArray:
        """(F, C)."""
        return self._scaled * self._scale

    def scores(self, rows: csr_array) -> FloatArray:
        """(B, C) of rows (B, F)."""
        scores: FloatArray = (rows @ self._scaled) * self._scale + self.bias
        return scores

    def learn(self, rows: csr_array, right: IntArray, rate: float) -> None:
        """One update by rows (B, F) of labels (B,).

        Weights of the features that are present move by rate / B * value * y, y = 1 for the right label and -1 for the
        others, where y * score < 1, and nowhere else.
        """
        signs = np.full((len(right), len(self.bias)), -1.0)
        signs[np.arange(len(right)), right] = 1.0
        missed = signs * self.scores(rows) < 1.0
        self._shrink(1.0 - rate * self.decay)
        steps = np.where(missed, signs, 0.0) * (rate / len(right))
        moved = rows.data[:, None] * np.repeat(steps / self._scale, np.diff(rows.indptr), axis=0)
        np.add.at(self._scaled, rows.indices, moved)  # a feature may stand in several rows
        self.bias += steps.sum(axis=0)

    def grow(self, n_features: int, n_labels: int) -> None:
        """Room for more features and labels, with weights of zero."""
        more = (max(0, n_features - len(self._scaled)), max(0, n_labels - len(self.bias)))
        self._scaled = np.pad(self._scaled, ((0, more[0]), (0, more[1])))
        self.bias = np.pad(self.bias, (0, more[1]))

    def _shrink(self, factor: float) -> None:
        self.bias *= factor
        self._scale *= factor
        if self._scale < _SMALLEST_SCALE:
            self._scaled *= self._scale
            self._scale = 1.0


def train_svm(svm: LinearSvm, rows: csr_array, right: IntArray, rate: float, epochs: int, batch_size: int) -> None:
    """Updates in random order, always the same one; the rate falls linearly to 0."""
    rng = np.random.default_rng(1)
    n_updates = -(-len(right) // batch_size)
    for epoch in range(epochs):
        for update, chosen in enumerate(np.array_split(rng.permutation(len(right)), n_updates)):
            done = (epoch * n_updates + update) / (epochs * n_updates)
            svm.learn(rows[chosen], right[chosen], rate * (1.0 - done))
