"""Learning-rate schedules: the factor by which the configured learning rate is multiplied at each update.

All except `Plateau` are pure functions of the update's number, so a resumed run needs nothing else.
"""

from __future__ import annotations

import math

from torch.optim.optimizer import StateDict

from runner.common.types import Fraction, NonNegativeInt, PositiveInt


class _Pure:
    """A schedule that does not depend on evaluations and has no state."""

    def observe(self, quality: float) -> None:
        pass

    def state(self) -> StateDict:
        return {}

    def restore(self, state: StateDict) -> None:
        pass


class Constant(_Pure):
    """The configured learning rate throughout."""

    def factor(self, update: int) -> float:
        return 1.0


# Length of the warm-up: a number of updates, or a share of all updates (a float such as 0.1).
Warmup = NonNegativeInt | Fraction


def warmup_updates(warmup: Warmup, total: int) -> int:
    """Return the number of updates of the warm-up."""
    return warmup if isinstance(warmup, int) else round(warmup * total)


class WarmupLinear(_Pure):
    """A linear rise during the first `warmup` updates, then a linear fall to 0 at the last update."""

    def __init__(self, *, total_updates: int, warmup: Warmup) -> None:
        self.total, self.warmup = total_updates, warmup_updates(warmup, total_updates)

    def factor(self, update: int) -> float:
        if update < self.warmup:
            return (update + 1) / self.warmup
        return max(0.0, (self.total - update) / max(1, self.total - self.warmup))


class Cosine(_Pure):
    """A warm-up, then half a cosine from 1 to `floor` (Loshchilov and Hutter 2017, equation 5, one period)."""

    def __init__(self, *, total_updates: int, warmup: Warmup, floor: Fraction) -> None:
        self.total, self.warmup, self.floor = total_updates, warmup_updates(warmup, total_updates), floor

    def factor(self, update: int) -> float:
        if update < self.warmup:
            return (update + 1) / self.warmup
        done = min(1.0, (update - self.warmup) / max(1, self.total - self.warmup))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


class Step(_Pure):
    """A multiplication by `gamma` after every `every_epochs` epochs."""

    def __init__(self, *, updates_per_epoch: int, every_epochs: PositiveInt, gamma: Fraction) -> None:
        self.period, self.gamma = updates_per_epoch * every_epochs, gamma

    def factor(self, update: int) -> float:
        return float(self.gamma ** (update // self.period))


class Plateau:
    """A multiplication by `gamma` after more than `patience` evaluations without improvement, down to `floor`."""

    def __init__(self, *, gamma: Fraction, patience: NonNegativeInt, floor: Fraction) -> None:
        self.gamma, self.patience, self.floor = gamma, patience, floor
        self._factor, self._best, self._waited = 1.0, -math.inf, 0

    def factor(self, update: int) -> float:
        return self._factor

    def observe(self, quality: float) -> None:
        if quality > self._best:
            self._best, self._waited = quality, 0
            return
        self._waited += 1
        if self._waited > self.patience:
            self._factor, self._waited = max(self.floor, self._factor * self.gamma), 0

    def state(self) -> StateDict:
        best = None if math.isinf(self._best) else self._best
        return {"factor": self._factor, "best": best, "waited": self._waited}

    def restore(self, state: StateDict) -> None:
        self._factor, self._waited = state["factor"], state["waited"]
        self._best = -math.inf if state["best"] is None else state["best"]
