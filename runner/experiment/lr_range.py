"""Learning-rate range test (Smith 2017, Cyclical Learning Rates, arXiv:1506.01186, section 3.3).

The learning rate rises exponentially from update to update of one training. The loss hardly changes while the rate is
too low, falls while it fits, and rises again when steps overshoot. Rates are derived from the smoothed loss
m_i = sum_j b^(i-j) x_j / sum_j b^(i-j), an exponential mean with bias correction as in Adam (Kingma and Ba 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DIVERGED = 4.0  # the loss has diverged if it is this many times the lowest smoothed loss
BELOW_MINIMUM = 10.0  # ratio of the rate at the lowest loss to the suggested rate
_SKIPPED = 0.1  # share of the first updates, whose mean is of few losses, so that nothing is read off there


@dataclass(frozen=True)
class Range:
    """The measurements of a test of n updates.

    Attributes:
        rates: (n,) rising.
        losses: (n,) mean loss of each update, before its step.
        smoothed: (n,) smoothed losses.
        diverged: the rate at which the loss was not finite, or DIVERGED times its lowest; None if it never diverged.
    """

    rates: Floats
    losses: Floats
    smoothed: Floats
    diverged: float | None

    @property
    def lowest(self) -> float | None:
        """The rate at the lowest smoothed loss; None if the loss did not fall."""
        place = self._lowest()
        return None if place is None else float(self.rates[place])

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate at the lowest loss; None if the loss did not fall."""
        return None if self.lowest is None else self.lowest / BELOW_MINIMUM

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest over the logarithm of the rate; None if it did not fall."""
        place = self._lowest()
        if place is None:
            return None
        slopes = np.gradient(self.smoothed, np.log(self.rates))
        return float(self.rates[self._first + int(np.argmin(slopes[self._first : place + 1]))])

    @property
    def still_falling(self) -> bool:
        """True if the loss is lowest at the end of the test, so that higher rates should be tried too."""
        return self.diverged is None and self._lowest() == len(self.rates) - 1

    @property
    def _first(self) -> int:
        return int(_SKIPPED * len(self.rates))

    def _lowest(self) -> int | None:
        """Return the update of the lowest smoothed loss, or None if it is the first one that counts."""
        if len(self.rates) < 2:
            return None
        place = self._first + int(np.argmin(self.smoothed[self._first :]))
        return place if place > self._first else None


def rising(low: float, high: float, updates: int) -> Floats:
    """Return a geometric sequence of rates from `low` to `high`, (updates,)."""
    return np.geomspace(low, high, updates)


def measure(step: Callable[[float], float], rates: Iterable[float], smoothing: float) -> Range:
    """Take a step at each rate until the loss diverges.

    Args:
        step: makes one update at a given rate and returns its loss.
        rates: of the updates, rising.
        smoothing: exponential smoothing factor, from 0 (none) to below 1.
    """
    used: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    total = weight = 0.0
    diverged = None
    for rate in rates:
        loss = step(rate)
        if not math.isfinite(loss):
            diverged = rate
            break
        total, weight = smoothing * total + loss, smoothing * weight + 1
        used.append(rate)
        losses.append(loss)
        smoothed.append(total / weight)
        if smoothed[-1] > DIVERGED * min(smoothed):
            diverged = rate
            break
    return Range(np.array(used), np.array(losses), np.array(smoothed), diverged)
