"""The target quality on valid, and the time at which a run reached it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reporting.runs.run import Run


@dataclass(frozen=True)
class Target:
    """A quality on valid: `given` by the user, or the lowest of the runs' best qualities, which every run reaches."""

    quality: float | None
    given: bool


def common_target(runs: list[Run], higher: bool) -> float | None:
    """Return the worst of the runs' best qualities; None if there are no evaluations."""
    best = [
        (max if higher else min)(evaluation.quality for evaluation in run.evaluations)
        for run in runs
        if run.evaluations
    ]
    return (min if higher else max)(best) if best else None


def counts_tokens(run: Run) -> bool:
    """Return True if the run's evaluations record how many tokens had been read; those of old runs do not."""
    return all(evaluation.tokens is not None for evaluation in run.evaluations)


def time_to_reach(run: Run, target: Target, higher: bool, unit: Literal["seconds", "tokens"]) -> float | None:
    """Return seconds of training, or real tokens, at the first evaluation that reached the target; None if none did.

    There is no interpolation between evaluations.
    """
    quality = target.quality
    if quality is None:
        return None
    for evaluation in run.evaluations:
        if evaluation.quality >= quality if higher else evaluation.quality <= quality:
            return evaluation.seconds if unit == "seconds" else evaluation.tokens
    return None
