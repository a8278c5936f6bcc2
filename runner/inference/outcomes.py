"""The contribution of each example of a split to the metric by which runs are compared: `outcomes.npz`.

With these, two runs can be compared example by example (a paired bootstrap), which is more precise than comparing two
totals.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from runner.common import run_schema
from runner.common.arrays import FloatArray, IntArray
from runner.common.files import write_bytes
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab

MetricInput = IntArray | FloatArray  # predicted ids, or losses
Outcomes = Mapping[str, npt.NDArray[np.generic]]


@runtime_checkable
class HasOutcomes(Protocol):
    """A task whose main metric is computed from sums over examples."""

    def outcomes(self, results: MetricInput, split: Batch, vocabs: Mapping[str, Vocab]) -> Outcomes | None:
        """Return summands by name, (n,) each: one for every row in the split's order (of a stream: for equal blocks).

        - `right`, `answers`: accuracy = 100 sum right / sum answers
        - `right`, `predicted`, `gold`: F1 = 200 sum right / (sum predicted + sum gold)
        - `nats`, `tokens`: perplexity = exp(sum nats / sum tokens)

        None where the metric is no function of such sums (macro F1).

        Args:
            results: (N,) input of the task's metric, for all rows or tokens: predictions, or losses.
            split: the whole split.
            vocabs: vocabularies of the features and the target.
        """
        ...


def write_outcomes(
    task: object, results: MetricInput, name: str, split: Batch, vocabs: Mapping[str, Vocab], folder: Path
) -> None:
    """Write the outcomes of split `name` to the run's folder, if the task has any.

    Raises:
        HydromelError: the file cannot be written.
    """
    if not isinstance(task, HasOutcomes):
        return
    outcomes = task.outcomes(results, split, vocabs)
    if outcomes is None:
        return
    file = io.BytesIO()
    arrays: dict[str, Any] = {"split": np.array([name]), **outcomes}
    np.savez(file, **arrays)
    write_bytes(folder / run_schema.OUTCOMES, file.getvalue())
