"""A linear support vector machine over sparse rows, one label against the rest.

Shapes: B rows, F features, C labels.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from runner.common.arrays import FloatArray, IntArray

_SMALLEST_SCALE = 1e-6


class LinearSvm:
    """A linear SVM, trained by stochastic gradient descent on the hinge loss with an L2 term.

    The method is Pegasos (Shalev-Shwartz et al. 2007) except for the learning rate, which the caller chooses.

    Args:
        n_features: F.
        n_labels: C.
        decay: lambda, the weight of the L2 term, on the bias too.
    """

    def __init__(self, n_features: int, n_labels: int, decay: float) -> None:
        self.decay = decay
        self.bias = np.zeros(n_labels)
        # The weights are `_scaled * _scale`. Decay multiplies only the scalar, so the cost of an update depends on the
        # non-zero entries of its rows, not on F.
        self._scaled, self._scale = np.zeros((n_features, n_labels)), 1.0

    @property
    def weights(self) -> FloatArray:
        """The weights (F, C)."""
        return self._scaled * self._scale

    def scores(self, rows: csr_array) -> FloatArray:
        """Return the scores (B, C) of rows (B, F)."""
        scores: FloatArray = (rows @ self._scaled) * self._scale + self.bias
        return scores

    def learn(self, rows: csr_array, labels: IntArray, rate: float) -> None:
        """Make one update with rows (B, F) of labels (B,).

        Where y * score < 1, the weights of the features in the row change by rate / B * value * y, with y = 1 for the
        row's label and -1 for the others. All other weights only decay.
        """
        signs = np.full((len(labels), len(self.bias)), -1.0)
        signs[np.arange(len(labels)), labels] = 1.0
        inside_margin = signs * self.scores(rows) < 1.0
        self._shrink(1.0 - rate * self.decay)
        steps = np.where(inside_margin, signs, 0.0) * (rate / len(labels))
        changes = rows.data[:, None] * np.repeat(steps / self._scale, np.diff(rows.indptr), axis=0)
        np.add.at(self._scaled, rows.indices, changes)  # unlike `+=`, adds up features that are in several rows
        self.bias += steps.sum(axis=0)

    def _shrink(self, factor: float) -> None:
        self.bias *= factor
        self._scale *= factor
        # Fold the scale into the weights before it underflows.
        if self._scale < _SMALLEST_SCALE:
            self._scaled *= self._scale
            self._scale = 1.0


def train_svm(svm: LinearSvm, rows: csr_array, labels: IntArray, rate: float, epochs: int, batch_size: int) -> None:
    """Train for some epochs in a fixed random order; the learning rate decreases linearly to 0."""
    rng = np.random.default_rng(1)
    n_updates = -(-len(labels) // batch_size)
    for epoch in range(epochs):
        for update, chosen in enumerate(np.array_split(rng.permutation(len(labels)), n_updates)):
            done = (epoch * n_updates + update) / (epochs * n_updates)
            svm.learn(rows[chosen], labels[chosen], rate * (1.0 - done))
