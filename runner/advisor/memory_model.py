"""A model of the memory that a batch needs, by its shape.

With R rows, width T and N real tokens, the peak of memory besides the gradients of parameters is

    a + b N + c R T + d R T^2 bytes,    a, b, c, d >= 0

The last term is that of attention whose kernel keeps the weights. With attention, packed rows are in several
rectangles, and R T and R T^2 are sums over them. Where work is done in chunks, as over a vocabulary, tokens beyond a
chunk do not add to b N. Small batches run in one chunk, in two, and token by token, to learn how much a chunk adds and
how much is needed with any chunk. The model does not include kernels' workspaces, the reserve of an allocator, and the
program itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from runner.common.arrays import FloatArray, IntArray
from runner.ragged.shapes import Shapes


@dataclass(frozen=True)
class MemoryModel:
    """The memory that batches of one layout need, by their shape."""

    weights: FloatArray  # (4,) a, b, c, d in bytes
    chunk: int | None  # tokens of a chunk; None: work is not done in chunks
    of_chunk: float  # bytes that each token of a chunk adds
    least_weights: FloatArray  # (4,) the weights with the smallest chunks
    early_gradient_bytes: int  # gradients, in bytes, at the moment of the highest peak of all small batches
    added_bytes: int  # the peak when gradients are added to existing ones, in bytes

    def peak(self, shapes: Shapes) -> tuple[int, int]:
        """Return the memory of the batch that needs most, in bytes, and its index."""
        terms = memory_terms(shapes)
        needs = terms @ self.weights
        if self.chunk is not None:
            beyond = np.maximum(shapes.tokens - self.chunk, 0)
            needs = np.maximum(needs - self.of_chunk * beyond, terms @ self.least_weights)
        neediest = int(needs.argmax())
        return round(needs[neediest]), neediest


def fit_bytes(terms: FloatArray, peaks: IntArray, attends: bool) -> FloatArray:
    """Fit non-negative weights (4,), in bytes, to `peaks` (M,) by least squares on `terms` (M, 4).

    Without attention d is 0: a spurious d, however small, would dominate the estimate for long rows.
    """
    terms = terms * [1.0, 1.0, 1.0, float(attends)]
    scale = terms.max(axis=0).clip(min=1.0)
    weights: FloatArray = nnls(terms / scale, peaks)[0] / scale
    return weights


def memory_terms(shapes: Shapes) -> FloatArray:
    """Return the factors of a, b, c and d for each batch, (M, 4)."""
    columns = (np.ones(len(shapes.rows)), shapes.tokens, shapes.cells, shapes.pairs)
    return np.stack(columns, axis=1).astype(np.float64)
