"""Learning-rate schedules: the factor by which the configured learning rate is multiplied at each update.

All except `Plateau` are pure functions of the update's number, so a resumed run needs nothing else.
"""

from __future__ import annotations

import math

from torch.optim.optimizer import StateDict

from runner.common.types import Fraction, NonNegativeInt, PositiveInt

# Length of the warm-up: a number of updates, or a share of all updates (a float such as 0.1).
Warmup = NonNegativeInt | Fraction


class _WarmUp:
    """A linear rise during the first `warmup` updates; subclasses say what follows."""

    def __init__(self, total_updates: int, warmup: Warmup) -> None:
        self.total = total_updates
        self.warmup = warmup if isinstance(warmup, int) else round(warmup * total_updates)

    def factor(self, update: int) -> float:
        return (update + 1) / self.warmup if update < self.warmup else self.after_warmup(update)

    def after_warmup(self, update: int) -> float:
        """Return the factor at an update that is not before `warmup`."""
        raise NotImplementedError


class _Pure(_WarmUp):
    """A schedule that does not depend on evaluations and has no state."""

    def observe(self, quality: float) -> None:
        pass

    def state(self) -> StateDict:
        return {}

    def restore(self, state: StateDict) -> None:
        pass


class Constant(_Pure):
    """The configured learning rate throughout, after a warm-up."""

    def __init__(self, *, total_updates: int, warmup: Warmup) -> None:
        super().__init__(total_updates, warmup)

    def after_warmup(self, update: int) -> float:
        return 1.0


class WarmupLinear(_Pure):
    """A linear rise during the first `warmup` updates, then a linear fall to 0 at the last update."""

    def __init__(self, *, total_updates: int, warmup: Warmup) -> None:
        super().__init__(total_updates, warmup)

    def after_warmup(self, update: int) -> float:
        return max(0.0, (self.total - update) / max(1, self.total - self.warmup))


class Cosine(_Pure):
    """A warm-up, then half a cosine from 1 to `floor` (Loshchilov and Hutter 2017, equation 5, one period)."""

    def __init__(self, *, total_updates: int, warmup: Warmup, floor: Fraction) -> None:
        super().__init__(total_updates, warmup)
        self.floor = floor

    def after_warmup(self, update: int) -> float:
        done = min(1.0, (update - self.warmup) / max(1, self.total - self.warmup))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2


class Step(_Pure):
    """A multiplication by `gamma` after every `every_epochs` epochs."""

    def __init__(
        self,
        *,
        total_updates: int,
        updates_per_epoch: int,
        warmup: Warmup,
        every_epochs: PositiveInt,
        gamma: Fraction,
    ) -> None:
        super().__init__(total_updates, warmup)
        self.period, self.gamma = updates_per_epoch * every_epochs, gamma

    def after_warmup(self, update: int) -> float:
        return float(self.gamma ** (update // self.period))


class Plateau(_WarmUp):
    """A multiplication by `gamma` after more than `patience` evaluations without improvement, down to `floor`."""

    def __init__(
        self, *, total_updates: int, warmup: Warmup, gamma: Fraction, patience: NonNegativeInt, floor: Fraction
    ) -> None:
        super().__init__(total_updates, warmup)
        self.gamma, self.patience, self.floor = gamma, patience, floor
        self._factor, self._best, self._waited = 1.0, -math.inf, 0

    def after_warmup(self, update: int) -> float:
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
