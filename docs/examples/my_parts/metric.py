"""A metric: the mean cost of a prediction, where some mistakes cost more than others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.inference.outcomes import Outcomes
from runner.interfaces import InputKind, Scale
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab
from tasks.targets import sum_per_row, target_ids


class MistakeCost:
    """The mean cost of a prediction: 0 if it is correct, else the cost that its target has.

    Args:
        costs: the cost of a wrong prediction by label of the target; 1 for labels that are not named. None: all 1.
    """

    scales: Mapping[str, Scale] = {"mistake_cost": Scale(unit="", higher_is_better=False)}
    input_kind: InputKind = "predictions"

    def __init__(self, *, costs: dict[str, float] | None) -> None:
        self.costs = costs or {}

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        """Begin a new measurement."""
        costs = [self.costs.get(label, 1.0) for label in vocabs["target"].tokens]
        self.cost_of = torch.tensor(costs, dtype=torch.float64)
        self.total, self.count = torch.zeros((), dtype=torch.float64), 0

    def update(self, values: Tensor, batch: Batch) -> None:
        """Add the predictions of one batch; the total stays a tensor, so nothing waits for a GPU."""
        self.total = self.total + self._costs(values, batch).sum()
        self.count += len(values)

    def compute(self) -> dict[str, float]:
        """Return the figure of all batches."""
        return {"mistake_cost": float(self.total) / max(1, self.count)}

    def outcomes(self, figure: str, values: IntArray, split: Batch) -> Outcomes:
        """Return the figure's terms for each row (optional): with them, runs are compared example by example."""
        costs = self._costs(torch.from_numpy(values), split)
        targets = sum_per_row(torch.ones(len(values), dtype=torch.int64), split).numpy()
        return Outcomes(numerator=sum_per_row(costs, split).numpy(), denominator=targets, targets=targets)

    def _costs(self, values: Tensor, batch: Batch) -> Tensor:
        targets = target_ids(batch)
        costs = self.cost_of.to(targets.device, non_blocking=True).index_select(0, targets)
        return torch.where(values == targets, 0.0, costs)
