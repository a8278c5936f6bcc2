"""The contribution of each example of a split to the figure by which runs are compared: `outcomes.npz`.

Comparing two runs example by example (a paired bootstrap) is more precise than comparing two totals.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from runner.common import run_schema
from runner.common.arrays import BoolArray, FloatArray, IntArray
from runner.common.files import write_bytes
from runner.interfaces import Metric
from runner.ragged.batch import Batch

MetricInput = IntArray | FloatArray | BoolArray  # predictions, or losses


@dataclass(frozen=True)
class Outcomes:
    """The terms of a figure = f(sum of numerators / sum of denominators).

    The arrays are (n,): an entry per row, in the split's order, or in a stream per block of equal length.
    """

    numerator: IntArray | FloatArray
    denominator: IntArray | FloatArray
    targets: IntArray  # equal in all runs on the same data; runs are matched by them
    f: Literal["identity", "exp"] = "identity"


@runtime_checkable
class HasOutcomes(Protocol):
    """A metric with figures that are computed from sums over examples."""

    def outcomes(self, figure: str, values: MetricInput, split: Batch) -> Outcomes | None:
        """Return the terms of a figure of a split with inputs (N,); None if it is not a function of sums (macro F1)."""


def write_outcomes(metric: Metric, figure: str, values: MetricInput, name: str, split: Batch, folder: Path) -> None:
    """Write the outcomes of split `name` by a started metric to the run's folder, if the figure has any."""
    outcomes = metric.outcomes(figure, values, split) if isinstance(metric, HasOutcomes) else None
    if outcomes is None:
        return
    file = io.BytesIO()
    np.savez(file, split=np.array([name]), **{**vars(outcomes), "f": np.array([outcomes.f])})
    write_bytes(folder / run_schema.OUTCOMES, file.getvalue())
