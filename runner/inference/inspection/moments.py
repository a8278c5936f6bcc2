"""Running sums over a text, in memory that does not grow with its length: correlations, and saturation of gates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

LEFT, RIGHT = 0.1, 0.9  # a gate is closed below LEFT and open above RIGHT (Karpathy et al. 2015, section 4.2)
_ROUNDING = 1e-10  # share of a column's mean square below which its variance is rounding only


class Moments:
    """The Pearson correlation of each of U columns with each of F others, in one pass.

    Means and centred sums of products of each passage are merged (Chan, Golub, LeVeque 1983), which avoids the
    cancellation of sums of squares.
    """

    def __init__(self, units: int, properties: int) -> None:
        self.count = 0
        self.means = np.zeros(units), np.zeros(properties)
        self.squares = np.zeros(units), np.zeros(properties)
        self.products = np.zeros((units, properties))

    def add(self, units: npt.NDArray[np.floating], properties: npt.NDArray[np.floating]) -> None:
        """Add a passage: (n, U) and (n, F), one row for each token."""
        n = len(units)
        if not n:
            return
        tables = units.astype(np.float64), properties.astype(np.float64)
        means = tuple(table.mean(axis=0) for table in tables)
        centred = tuple(table - mean for table, mean in zip(tables, means, strict=True))
        # The merged centred sum is the sum of both passages' sums, plus the outer product of the differences of their
        # means with weight n m / (n + m).
        weight = self.count * n / (self.count + n)
        steps = tuple(new - old for new, old in zip(means, self.means, strict=True))
        self.products += centred[0].T @ centred[1] + weight * np.outer(*steps)
        for deviations, step, square, mean in zip(centred, steps, self.squares, self.means, strict=True):
            square += (deviations**2).sum(axis=0) + weight * step**2
            mean += step * n / (self.count + n)
        self.count += n

    def correlation(self) -> Floats:
        """Return (U, F) correlations from -1 to 1, NaN where either column does not vary."""
        spreads = []
        for square, mean in zip(self.squares, self.means, strict=True):
            varies = square > _ROUNDING * (square + self.count * mean**2)
            spreads.append(np.sqrt(np.where(varies, square, np.nan)))
        return np.clip(self.products / np.outer(*spreads), -1.0, 1.0)


class Saturation:
    """The share of tokens at which each of U gates is closed (below `LEFT`), and open (above `RIGHT`)."""

    def __init__(self, units: int) -> None:
        self.count = 0
        self.sums = np.zeros((2, units), dtype=np.int64)

    def add(self, gates: Singles) -> None:
        """Add (n, U) gate values, 0 to 1, one row for each token."""
        self.count += len(gates)
        self.sums += np.stack(((gates < LEFT).sum(axis=0), (gates > RIGHT).sum(axis=0)))

    def shares(self) -> tuple[Floats, Floats]:
        """Return (U,) the shares of tokens at which gates are closed, and (U,) open: 0 to 1."""
        left, right = self.sums / max(self.count, 1)
        return left, right
