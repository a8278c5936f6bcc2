"""Which of a group's runs count, by strategy, seed and turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reporting.runs.run import Run

KNOWN_WRONG = "unmasked"  # the neighbours' padding leaks into its answers: the same rows give other gradients
ORDER = ("size1", "same_length", "bucketed", "padmask", "packed", "timestep", "token_budget", "stream", KNOWN_WRONG)
Seeds = Mapping[int, Mapping[int, Run]]  # seed -> turn -> run


@dataclass(frozen=True)
class Chosen:
    """The runs that count. `left_out` are older runs of the same strategy, seed and turn."""

    by_strategy: dict[str, Seeds]
    left_out: int

    @property
    def runs(self) -> list[Run]:
        return [run for seeds in self.by_strategy.values() for run in every(seeds)]

    @property
    def machines(self) -> set[tuple[str, ...]]:
        return {run.machine for run in self.runs}


def choose(runs: list[Run]) -> Chosen:
    """The newest run of each strategy, seed and turn; strategies, seeds and turns in their order."""
    chosen: dict[str, dict[int, dict[int, Run]]] = {}
    left_out = 0
    for run in sorted(runs, key=lambda run: (rank(run.strategy), run.seed, run.turn, run.created)):
        turns = chosen.setdefault(run.strategy, {}).setdefault(run.seed, {})
        left_out += run.turn in turns
        turns[run.turn] = run
    return Chosen(dict(chosen), left_out)


def every(seeds: Seeds) -> list[Run]:
    """All runs, whatever their turn: time is measured by each of them."""
    return [run for turns in seeds.values() for run in turns.values()]


def first(seeds: Seeds) -> dict[int, Run]:
    """The first turn of each seed: another turn has the same quality, or something is wrong."""
    return {seed: turns[min(turns)] for seed, turns in seeds.items()}


def rank(strategy: str) -> tuple[int, str]:
    """Strategies stand in a fixed order everywhere; those without a place in it come last, by name."""
    name = strategy.partition(" ")[0]  # options may follow
    return (ORDER.index(name) if name in ORDER else len(ORDER), strategy)
