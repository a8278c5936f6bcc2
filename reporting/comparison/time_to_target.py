"""The target quality on valid, and when a run reached it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reporting.runs.run import Run


@dataclass(frozen=True)
class Target:
    """A quality on valid; `given` by the user, else the worst of the runs' best, which every run reaches."""

    quality: float | None
    given: bool


def common_target(runs: list[Run], higher: bool) -> float | None:
    """The worst of the runs' best."""
    best = [(max if higher else min)(each.quality for each in run.evaluations) for run in runs if run.evaluations]
    return (min if higher else max)(best) if best else None


def counts_tokens(run: Run) -> bool:
    """Whether its evaluations say how many tokens had been read: those of old runs do not."""
    return all(each.tokens is not None for each in run.evaluations)


def when(run: Run, target: Target, higher: bool, unit: Literal["seconds", "tokens"]) -> float | None:
    """Seconds of training, or real tokens, at the first evaluation that reached the target; None if none did.

    Nothing is read between evaluations.
    """
    aim = target.quality
    if aim is None:
        return None
    there = (each for each in run.evaluations if (each.quality >= aim if higher else each.quality <= aim))
    reached = next(there, None)
    if reached is None:
        return None
    return reached.seconds if unit == "seconds" else reached.tokens
