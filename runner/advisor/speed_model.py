"""How the time that a micro-batch takes grows with its shape.

With R rows, width T and N real tokens, forward and backward take

    a + b N + c R T + d R T^2 + e T seconds,    a, b, c, d, e >= 0

(d is what attention needs, which has packed rows in several rectangles: R T and R T^2 are then sums; e is what every
step of a recurrent layer costs whatever the rows). The law is fitted to times measured on this machine, so that the sum
of the errors' absolute values is least: a median rather than a mean, which a moment's disturbance does not move
(Koenker and Bassett 1978; solved as a linear programme). Errors are divided by the square root of the time measured:
large batches weigh more, as they do in an epoch's time, but do not decide alone.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from runner.common.arrays import FloatArray
from runner.ragged.shapes import Shapes

# by how much a term must better the fit, relative to the times: where laws fit alike, time goes with tokens and places
_MUST_BETTER = np.array([1e-3, 0.0, 0.0, 2e-2, 1e-3])


def terms_of(shapes: Shapes) -> FloatArray:
    """(M, 5) what a, b, c, d and e are multiplied by."""
    columns = [np.ones(len(shapes.rows)), shapes.tokens, shapes.cells, shapes.pairs, shapes.widths]
    return np.stack(columns, axis=1).astype(np.float64)


def fitted(terms: FloatArray, seconds: FloatArray) -> FloatArray:
    """(5,) seconds of each of the `terms` (M, 5), none negative, that come nearest to `seconds` (M,)."""
    n_points, n_terms = terms.shape
    spread = np.sqrt(seconds * seconds.mean())
    scale = (terms / spread[:, None]).mean(axis=0)
    scaled, wanted = terms / spread[:, None] / scale, seconds / spread
    # unknowns: a weight for each term, and for each measurement how far the law is from it
    gaps = np.eye(n_points)
    above = np.concatenate([scaled, -gaps], axis=1)
    below = np.concatenate([-scaled, -gaps], axis=1)
    solved = linprog(
        np.concatenate([_MUST_BETTER * n_points, np.ones(n_points)]),
        A_ub=np.concatenate([above, below]),
        b_ub=np.concatenate([wanted, -wanted]),
        method="highs",
    )
    assert solved.x is not None, solved.message  # there is a solution whatever was measured
    weights: FloatArray = solved.x[:n_terms] / scale
    return weights
