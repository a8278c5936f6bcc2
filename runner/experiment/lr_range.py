"""Learning-rate range test (Smith 2017, Cyclical Learning Rates, arXiv:1506.01186, section 3.3).

One training, its rate rising exponentially from update to update. The loss hardly moves while the rate is too low,
falls while it fits, and rises again where steps overshoot. What is read off is the smoothed loss: the exponential mean
m_i = sum_j b^(i-j) x_j / sum_j b^(i-j), which is the bias-corrected one of Adam (Kingma and Ba 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DIVERGED = 4.0  # times the lowest smoothed loss
BELOW_MINIMUM = 10.0  # the suggested rate is so many times lower than that of the lowest loss
_SETTLING = 0.1  # share of the updates in which the mean is one of few losses: nothing is read off there


@dataclass(frozen=True)
class Range:
    """What a test measured.

    Attributes:
        rates: (n,) of n updates, rising.
        losses: (n,) mean over each update's answers, before its step.
        smoothed: (n,) of the losses.
        diverged: the rate at which the loss was not finite, or DIVERGED times its lowest; None: there was none.
    """

    rates: Floats
    losses: Floats
    smoothed: Floats
    diverged: float | None

    @property
    def lowest(self) -> float | None:
        """The rate at the lowest smoothed loss; None where the loss did not fall."""
        place = self._lowest()
        return None if place is None else float(self.rates[place])

    @property
    def suggestion(self) -> float | None:
        """A tenth of the rate at the lowest loss; None where the loss did not fall."""
        return None if self.lowest is None else self.lowest / BELOW_MINIMUM

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest, per factor of the rate; None where it did not fall."""
        place = self._lowest()
        if place is None:
            return None
        slopes = np.gradient(self.smoothed, np.log(self.rates))
        return float(self.rates[self._begin + int(np.argmin(slopes[self._begin : place + 1]))])

    @property
    def still_falling(self) -> bool:
        """Whether the lowest loss is where the test ended: higher rates should be tried, too."""
        return self.diverged is None and self._lowest() == len(self.rates) - 1

    @property
    def _begin(self) -> int:
        return int(_SETTLING * len(self.rates))

    def _lowest(self) -> int | None:
        """The update of the lowest smoothed loss."""
        if len(self.rates) < 2:
            return None
        place = self._begin + int(np.argmin(self.smoothed[self._begin :]))
        return place if place > self._begin else None


def rising(low: float, high: float, updates: int) -> Floats:
    """(updates,) rates from `low` to `high`, each the same factor above the one before."""
    return np.geomspace(low, high, updates)


def measure(step: Callable[[float], float], rates: Iterable[float], smoothing: float) -> Range:
    """Take a step at each rate until the loss diverges.

    Args:
        step: makes one update at this rate and gives its loss.
        smoothing: weight of what was, 0 (none) to below 1.
    """
    taken: list[float] = []
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
        taken.append(rate)
        losses.append(loss)
        smoothed.append(total / weight)
        if smoothed[-1] > DIVERGED * min(smoothed):
            diverged = rate
            break
    return Range(np.array(taken), np.array(losses), np.array(smoothed), diverged)
