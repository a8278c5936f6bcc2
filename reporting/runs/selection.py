"""Selection of the runs that count in a group, by strategy, seed and turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reporting.runs.run import Run

KNOWN_WRONG = "unmasked"  # the padding of other rows leaks into its outputs: the same rows give other gradients
ORDER = ("size1", "same_length", "bucketed", "padmask", "packed", "timestep", "token_budget", "stream", KNOWN_WRONG)
Seeds = Mapping[int, Mapping[int, Run]]  # seed -> turn -> run


@dataclass(frozen=True)
class SelectedRuns:
    """The runs that count. `left_out` is the number of older runs of the same strategy, seed and turn."""

    by_strategy: dict[str, Seeds]
    left_out: int

    @property
    def runs(self) -> list[Run]:
        """All runs that count, strategy by strategy."""
        return [run for seeds in self.by_strategy.values() for run in all_turns(seeds)]

    @property
    def machines(self) -> set[tuple[str, ...]]:
        """The machines that the runs used."""
        return {run.machine for run in self.runs}


def select_runs(runs: list[Run]) -> SelectedRuns:
    """Return the newest run of each strategy, seed and turn, sorted by all three."""
    selected: dict[str, dict[int, dict[int, Run]]] = {}
    left_out = 0
    for run in sorted(runs, key=lambda run: (rank(run.strategy), run.seed, run.turn, run.created)):
        turns = selected.setdefault(run.strategy, {}).setdefault(run.seed, {})
        left_out += run.turn in turns
        turns[run.turn] = run
    return SelectedRuns(dict(selected), left_out)


def all_turns(seeds: Seeds) -> list[Run]:
    """Return the runs of every turn, for measures of time: each turn measures time anew."""
    return [run for turns in seeds.values() for run in turns.values()]


def first_turns(seeds: Seeds) -> dict[int, Run]:
    """Return each seed's first turn, for measures of quality: other turns must have the same."""
    return {seed: turns[min(turns)] for seed, turns in seeds.items()}


def rank(strategy: str) -> tuple[int, str]:
    """Return the sort key of a strategy: the fixed order of `ORDER`, then all others by name."""
    name = strategy.partition(" ")[0]  # options may follow
    return (ORDER.index(name) if name in ORDER else len(ORDER), strategy)
