"""`batching=auto`: the fastest of several strategies for this model, data and device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runner.common.types import Bytes, Name, PositiveInt, Seconds
from runner.interfaces import BatchingStrategy
from runner.ragged.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Auto:
    """The strategies that `runner.advisor` chooses from.

    Args:
        name: the run's strategy in reports, whichever candidate is chosen.
        batch_size: examples per update; candidates refer to it.
        batch_sizes: also choose among these batch sizes (None: each candidate keeps its own).
        among: names of the candidates to try, at least one and each once.
        candidates: strategies of independent rows, by name.
        probe_seconds: approximate time for trying them, in seconds: timing takes what the estimate of their memory
            leaves, and at least a third.
        max_memory_bytes: exclude strategies with a higher peak memory (None: no limit).
    """

    carries_state: ClassVar[bool] = False
    name: Name
    batch_size: PositiveInt
    batch_sizes: list[PositiveInt] | None
    among: list[Name]
    candidates: dict[Name, BatchingStrategy]
    probe_seconds: Seconds
    max_memory_bytes: Bytes | None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.among if name not in self.candidates]:
            raise ValueError(f"among: unknown candidate '{unknown[0]}'; use {', '.join(self.candidates)}")
        for key, values in (("among", self.among), ("batch_sizes", self.batch_sizes)):
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(f"{key}={values}; give at least one entry, each only once")

    def arrange(self, split: Batch) -> Batch:
        """Return the training rows, which are the rows of the split for every candidate."""
        return split

    def strategies(self) -> list[tuple[str, BatchingStrategy]]:
        """Return the candidates to try, by name, each with every batch size."""
        chosen = [(name, self.candidates[name]) for name in self.among]
        if self.batch_sizes is None:
            return chosen
        return [(name, strategy.with_batch_size(size)) for name, strategy in chosen for size in self.batch_sizes]
