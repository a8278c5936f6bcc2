"""Sums over a text of any length in memory that does not grow with it: correlations, and how saturated gates are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

LEFT, RIGHT = 0.1, 0.9  # a gate below the one is closed, above the other open (Karpathy et al. 2015, section 4.2)
_ROUNDING = 1e-10  # of a column's mean square: a smaller variance is none


class Moments:
    """Pearson correlation of each of U columns with each of F others, in one pass.

    Means and centred sums of products of passages are merged (Chan, Golub, LeVeque 1983), so nothing cancels.
    """

    def __init__(self, units: int, properties: int) -> None:
        self.count = 0
        self.means = np.zeros(units), np.zeros(properties)
        self.squares = np.zeros(units), np.zeros(properties)
        self.products = np.zeros((units, properties))

    def add(self, units: npt.NDArray[np.floating], properties: npt.NDArray[np.floating]) -> None:
        """(n, U) and (n, F), a row a token."""
        more = len(units)
        if not more:
            return
        both = units.astype(np.float64), properties.astype(np.float64)
        means = tuple(one.mean(axis=0) for one in both)
        centred = tuple(one - mean for one, mean in zip(both, means, strict=True))
        weight = self.count * more / (self.count + more)
        steps = tuple(new - old for new, old in zip(means, self.means, strict=True))
        self.products += centred[0].T @ centred[1] + weight * np.outer(*steps)
        for one, step, square, mean in zip(centred, steps, self.squares, self.means, strict=True):
            square += (one**2).sum(axis=0) + weight * step**2
            mean += step * more / (self.count + more)
        self.count += more

    def correlation(self) -> Floats:
        """(U, F) from -1 to 1; NaN where either does not vary."""
        spreads = []
        for square, mean in zip(self.squares, self.means, strict=True):
            varies = square > _ROUNDING * (square + self.count * mean**2)
            spreads.append(np.sqrt(np.where(varies, square, np.nan)))
        return np.clip(self.products / np.outer(*spreads), -1.0, 1.0)


class Saturation:
    """For each of U gates the share of tokens at which it is closed (below `LEFT`), and open (above `RIGHT`)."""

    def __init__(self, units: int) -> None:
        self.count = 0
        self.sums = np.zeros((2, units), dtype=np.int64)

    def add(self, gates: Singles) -> None:
        """(n, U), 0 to 1."""
        self.count += len(gates)
        self.sums += np.stack(((gates < LEFT).sum(axis=0), (gates > RIGHT).sum(axis=0)))

    def shares(self) -> tuple[Floats, Floats]:
        """(U,) closed, (U,) open: 0 to 1."""
        left, right = self.sums / max(self.count, 1)
        return left, right
