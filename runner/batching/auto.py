"""`batching=auto`: several strategies, of which the fastest on this model, data and device is chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runner.batching.strategy import Batching
from runner.common.types import PositiveFloat, PositiveInt
from runner.ragged.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Which strategies to choose among; `runner.advisor` chooses.

    Args:
        name: what reports call the run's strategy, whichever is chosen.
        batch_size: examples of an update; candidates refer to it.
        batch_sizes: choose among these too (None: each candidate has its own).
        among: names of the candidates to try.
        candidates: strategies of independent rows, by name.
        probe_seconds: how long to try them, about.
        max_memory_bytes: leave out what would need more at its peak (None: no limit).

    Raises:
        ValueError: `among` names none, or one that is no candidate; sizes that are given twice.
    """

    name: str
    batch_size: PositiveInt
    batch_sizes: list[PositiveInt] | None
    among: list[str]
    candidates: dict[str, Batching]
    probe_seconds: PositiveFloat
    max_memory_bytes: PositiveInt | None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.among if name not in self.candidates]:
            raise ValueError(
                f"among names '{unknown[0]}', which is no candidate; there are {', '.join(self.candidates)}"
            )
        for key, values in (("among", self.among), ("batch_sizes", self.batch_sizes)):
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(f"{key}={values}; give one or more, each once")

    def arrange(self, split: Batch) -> Batch:
        """The rows of training: those of the split, as for every candidate."""
        return split

    def strategies(self) -> list[tuple[str, Batching]]:
        """The candidates to try, by name, each with every batch size."""
        chosen = [(name, self.candidates[name]) for name in self.among]
        if self.batch_sizes is None:
            return chosen
        return [(name, of_size(one, size)) for name, one in chosen for size in self.batch_sizes]


def of_size(batching: Batching, batch_size: int) -> Batching:
    """The same strategy with so many examples an update."""
    plan = replace(batching.plan, batch_size=batch_size)  # type: ignore[type-var]  # plans are dataclasses
    return replace(batching, batch_size=batch_size, plan=plan)
