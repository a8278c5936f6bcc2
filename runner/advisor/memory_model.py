"""How the memory that a batch needs grows with its shape.

With R rows, width T and N real tokens, the most bytes alive at once, gradients of parameters apart, are

    a + b N + c R T + d R T^2,    a, b, c, d >= 0

(the last term is what attention needs where its kernel keeps the weights; it has packed rows in several rectangles, of
which R T and R T^2 are then sums). Where work goes chunk by chunk, as over a
vocabulary, tokens beyond a chunk do not add to that: small batches are run in one chunk, in two, and token by token, to
learn what they add and what is needed all the same. Kernels' own workspaces are not seen, nor what an allocator
keeps in reserve, nor the program itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from runner.common.arrays import FloatArray, IntArray
from runner.ragged.shapes import Shapes


@dataclass(frozen=True)
class MemoryModel:
    """What a batch of some layout needs, by its shape.

    Attributes:
        weights: (4,) a, b, c, d in bytes.
        chunk: tokens of a chunk, where work goes by chunks; else None.
        of_chunk: bytes that a token of a chunk adds.
        least_weights: (4,) the law of what is needed with the smallest chunks.
        early_gradient_bytes: gradients that are there already when the neediest probe needs most.
        added_bytes: what the smallest probe needs where gradients are there already: mostly new ones, before they are
            added to those.
    """

    weights: FloatArray
    chunk: int | None
    of_chunk: float
    least_weights: FloatArray
    early_gradient_bytes: int
    added_bytes: int

    def of(self, shapes: Shapes) -> tuple[int, int]:
        """Bytes of the neediest of some batches, and which one that is."""
        terms = terms_of(shapes)
        needs = terms @ self.weights
        if self.chunk is not None:
            beyond = np.maximum(shapes.tokens - self.chunk, 0)
            needs = np.maximum(needs - self.of_chunk * beyond, terms @ self.least_weights)
        most = int(needs.argmax())
        return round(needs[most]), most


def fitted(terms: FloatArray, peaks: IntArray, attends: bool) -> FloatArray:
    """(4,) bytes of each of the `terms` (M, 4), none negative, that come nearest to `peaks` (M,) of small batches.

    Args:
        attends: whether the model has attention; without it d is 0, of which a trace would be much in long rows.
    """
    terms = terms * [1.0, 1.0, 1.0, float(attends)]
    scale = terms.max(axis=0).clip(min=1.0)
    weights: FloatArray = nnls(terms / scale, peaks)[0] / scale
    return weights


def terms_of(shapes: Shapes) -> FloatArray:
    """(M, 4) what a, b, c and d are multiplied by."""
    columns = (np.ones(len(shapes.rows)), shapes.tokens, shapes.cells, shapes.pairs)
    return np.stack(columns, axis=1).astype(np.float64)
