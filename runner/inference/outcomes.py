"""What each example of a split contributes to the figure by which runs are compared: `outcomes.npz`.

Two runs are then compared example by example (a paired bootstrap), which says more than two figures.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from runner.common import run_schema
from runner.common.files import write_bytes
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab

Outcomes = dict[str, npt.NDArray[Any]]


@runtime_checkable
class TellsOfExamples(Protocol):
    """A task whose headline figure is made of sums over examples."""

    def outcomes(self, said: npt.NDArray[Any], split: Batch, vocabs: Mapping[str, Vocab]) -> Outcomes | None:
        """Sums by name, (n,) each: of every row in the split's order (of a stream: of equal blocks).

        `right`, `answers` (accuracy = 100 sum right / sum answers), `right`, `predicted`, `gold` (F1 = 200 sum right /
        (sum predicted + sum gold)), or `nats`, `tokens` (perplexity = exp(sum nats / sum tokens)). None where the
        figure is no such sum (macro F1).

        Args:
            said: (N,) what the task's metric takes, of all rows or tokens: answers, or losses.
        """
        ...


def write_outcomes(
    task: object, said: npt.NDArray[Any], name: str, split: Batch, vocabs: Mapping[str, Vocab], folder: Path
) -> None:
    """Write those of split `name` to the run's folder, where the task has such.

    Raises:
        HydromelError: they cannot be written.
    """
    if not isinstance(task, TellsOfExamples):
        return
    found = task.outcomes(said, split, vocabs)
    if found is None:
        return
    file = io.BytesIO()
    arrays: dict[str, Any] = {"split": np.array([name]), **found}
    np.savez(file, **arrays)
    write_bytes(folder / run_schema.OUTCOMES, file.getvalue())
