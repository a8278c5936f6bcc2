"""A model of the time that a micro-batch takes, by its shape.

With R rows, width T and N real tokens, forward and backward take

    a + b N + c R T + d R T^2 + e T seconds,    a, b, c, d, e >= 0

d is the cost of attention, which has packed rows in several rectangles, so R T and R T^2 are sums over them. e is the
cost of a step of a recurrent layer, whatever the number of rows. The weights minimise the sum of absolute errors over
times measured on this machine: a median rather than a mean, which a momentary disturbance does not move (Koenker and
Bassett 1978; solved as a linear programme). Errors are divided by the square root of the measured time, so that large
batches weigh more, as they do in the time of an epoch, without dominating the fit.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from runner.common.arrays import FloatArray
from runner.ragged.shapes import Shapes

# The least improvement of the fit, relative to the times, for which a term is used. If several fits are equally good,
# time is put down to tokens and places.
_LEAST_GAIN = np.array([1e-3, 0.0, 0.0, 2e-2, 1e-3])


def speed_terms(shapes: Shapes) -> FloatArray:
    """Return the factors of a, b, c, d and e, (M, 5)."""
    columns = [np.ones(len(shapes.rows)), shapes.tokens, shapes.cells, shapes.pairs, shapes.widths]
    return np.stack(columns, axis=1).astype(np.float64)


def fit_seconds(terms: FloatArray, seconds: FloatArray) -> FloatArray:
    """Return the weights (5,), in seconds and not negative, that fit the measured `seconds` (M,) of `terms` (M, 5)."""
    n_points, n_terms = terms.shape
    spread = np.sqrt(seconds * seconds.mean())
    scale = (terms / spread[:, None]).mean(axis=0)
    scaled, wanted = terms / spread[:, None] / scale, seconds / spread
    # the unknowns: a weight of each term, and the absolute error of each measurement, a bound from above and below
    errors = np.eye(n_points)
    above = np.concatenate([scaled, -errors], axis=1)
    below = np.concatenate([-scaled, -errors], axis=1)
    solution = linprog(
        np.concatenate([_LEAST_GAIN * n_points, np.ones(n_points)]),
        A_ub=np.concatenate([above, below]),
        b_ub=np.concatenate([wanted, -wanted]),
        method="highs",
    )
    assert solution.x is not None, solution.message  # there is a solution whatever was measured
    weights: FloatArray = solution.x[:n_terms] / scale
    return weights
