"""Statistics of a plan, without training: how well it shuffles and how large its updates are.

Sorting rows by length saves padding but makes the rows of an update similar, so its gradient is a biased sample of the
full gradient. These statistics measure the bias, and compare it with that of a random assignment of rows to updates.

Shapes: B rows of the split, K updates of an epoch, C classes. Everything is counted exactly; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from runner.batching.plan import fill_rate, group_starts, stable_order
from runner.common.arrays import FloatArray, IntArray
from runner.ragged.shapes import shapes_of
from runner.ragged.updates import Updates


@dataclass(frozen=True)
class Spread:
    """The distribution of a positive quantity; `variation` is standard deviation / mean (0 if the mean is 0)."""

    mean: float
    variation: float
    smallest: int
    largest: int


@dataclass(frozen=True)
class Share:
    """A share, 0 to 1, and its mean over all ways to shuffle the rows (`chance`); None where it is undefined."""

    value: float | None
    chance: float | None

    @property
    def times_chance(self) -> float | None:
        """The share as a multiple of chance."""
        return None if self.value is None or not self.chance else self.value / self.chance


@dataclass(frozen=True)
class ShuffleQuality:
    """The statistics of a plan, as means over its epochs unless stated otherwise."""

    updates: float  # number of updates of an epoch
    rows_per_update: float
    fill_rate: float | None  # rows / (updates x batch size); None if no batch size limits updates
    tokens: Spread  # real tokens of an update, over all epochs
    alike_in_length: Share  # `between_share` of lengths: 0 if all updates have the same mean
    alike_in_targets: Share  # `between_share` of the classes (labels, or shares of tags)
    length_target_correlation: float | None  # `correlation` of length and class inside updates
    repeated_pairs: Share  # share of pairs of rows of one update that share an update again in the next epoch


def measure(
    epochs: Sequence[Sequence[IntArray]], lengths: IntArray, classes: FloatArray | None, batch_size: int | None
) -> ShuffleQuality:
    """Return the statistics of some epochs of a plan (at least one), each with every row exactly once.

    `classes` (B, C) come from `class_shares` (None: rows have no classes); `batch_size` is that of a full update.
    """
    members = [membership(updates, len(lengths)) for updates in epochs]
    n_updates = sum(map(len, epochs))
    in_length = [between_share(lengths, member) for member in members]
    in_classes = [None if classes is None else between_share(classes, member) for member in members]
    inside = [None if classes is None else correlation(lengths, classes, member) for member in members]
    chance = _mean([chance_between_share(member) for member in members])
    pairs = [repeated_pairs(before, after) for before, after in pairwise(members)]
    return ShuffleQuality(
        updates=n_updates / len(epochs),
        rows_per_update=len(lengths) * len(epochs) / n_updates,
        fill_rate=None if batch_size is None else _mean([fill_rate(updates, batch_size) for updates in epochs]),
        tokens=spread(np.concatenate([shapes_of(updates, lengths).tokens for updates in epochs])),
        alike_in_length=Share(_mean(in_length), chance),
        alike_in_targets=Share(_mean(in_classes), None if classes is None else chance),
        length_target_correlation=_mean(inside),
        repeated_pairs=Share(_mean(pairs), _mean([chance_repeated_pairs(member) for member in members[1:]])),
    )


def membership(updates: Sequence[IntArray], n_rows: int) -> IntArray:
    """Return the number of the update of each row, (B,); raise a ValueError if a row is in none or in several."""
    planned = Updates.of(updates)
    rows = planned.rows
    if len(rows) != n_rows or (np.bincount(rows, minlength=n_rows) != 1).any():
        raise ValueError(
            f"updates hold {len(rows)} row numbers for {n_rows} rows; a plan must have each row exactly once"
        )
    member = np.empty(n_rows, dtype=np.int64)
    member[rows] = np.repeat(np.arange(len(updates)), planned.sizes)
    return member


def spread(values: IntArray) -> Spread:
    mean = float(values.mean())
    return Spread(mean, float(values.std()) / mean if mean else 0.0, int(values.min()), int(values.max()))


def between_share(values: IntArray | FloatArray, groups: IntArray) -> float | None:
    """Return the share of variance between groups: `sum_g n_g |m_g - m|^2 / sum_i |x_i - m|^2`.

    m_g is the mean of a group of n_g values, m the mean of all. For one column this is eta squared, the correlation
    ratio of Pearson (1905) and Fisher (1925); for one 0/1 column per label it is the R squared of Light and Margolin
    (1971), which equals the tau of Goodman and Kruskal (1954).

    The result, for values (B,) or (B, D) and groups (B,) from 0, is from 0 to 1, or None if all values are equal.
    """
    columns = _columns(values)
    deviations = columns - columns.mean(axis=0)
    total = _squares(deviations, columns)
    counts = np.unique(groups, return_counts=True)[1]
    between = float((np.square(_sums(deviations, groups)).sum(axis=1) / counts).sum())
    return between / total if total else None


def chance_between_share(groups: IntArray) -> float | None:
    """Return the mean of `between_share` over all permutations of rows: (K - 1) / (B - 1); None for a single row."""
    return (len(np.unique(groups)) - 1) / (len(groups) - 1) if len(groups) > 1 else None


def repeated_pairs(before: IntArray, after: IntArray) -> float | None:
    """Return the share of pairs of rows that share an update in `before` (B,) and do so in `after` (B,) too.

    With n_ij rows in update i before and j after, this is `sum_ij n_ij (n_ij - 1) / sum_i n_i (n_i - 1)` (Wallace
    1983), which counts all pairs without enumerating them. None if no two rows share an update.
    """
    together = _pairs(np.bincount(before))
    both = np.unique(before * (int(after.max()) + 1) + after, return_counts=True)[1]
    return _pairs(both) / together if together else None


def chance_repeated_pairs(after: IntArray) -> float | None:
    """Return the mean of `repeated_pairs` if rows are assigned at random to updates of the sizes in `after` (B,).

    Any pair then shares an update with probability `sum_j n_j (n_j - 1) / (B (B - 1))`. None for a single row.
    """
    return _pairs(np.bincount(after)) / (len(after) * (len(after) - 1)) if len(after) > 1 else None


def correlation(lengths: IntArray, classes: FloatArray, groups: IntArray | None) -> float | None:
    """Return the correlation of a row's length x with its classes y, from 0 to 1.

    It is `sqrt(sum_c cov(x, y_c)^2 / (var x * sum_c var y_c))`. Its square is the share of the variance of y that
    is linear in the length (the redundancy of Stewart and Love 1968). For two labels it is the absolute value of their
    ordinary (point-biserial) correlation with the length.

    `classes` (B, C) come from `class_shares`. Deviations are from the mean of a row's group in `groups` (B,), or from
    that of all rows. None if lengths or classes never vary (inside groups).
    """
    groups = np.zeros(len(lengths), dtype=np.int64) if groups is None else groups
    columns = _columns(lengths)
    x, y = _centred(columns, groups), _centred(classes, groups)
    variances = _squares(x, columns) * _squares(y, classes)
    return float(np.sqrt(np.square(x.T @ y).sum() / variances)) if variances else None


def class_shares(ids: IntArray, counts: IntArray, n_classes: int) -> FloatArray:
    """Return the share of each class among the targets of a row, (B, C); all 0 for an empty row.

    `ids` (N,) are class ids, row after row; each row has as many as `counts` (B,) says: 1, or one for each token.
    """
    cells = np.repeat(np.arange(len(counts)) * n_classes, counts) + ids
    frequencies = np.bincount(cells, minlength=len(counts) * n_classes).reshape(len(counts), n_classes)
    return frequencies / np.maximum(1, counts)[:, None]


def _columns(values: IntArray | FloatArray) -> FloatArray:
    """Return a copy as floats, (B, D)."""
    return np.array(values, dtype=np.float64).reshape(len(values), -1)


def _squares(deviations: FloatArray, values: FloatArray) -> float:
    """Return the sum of squared deviations, or 0 if it is only rounding error of `values`."""
    total, scale = float(np.square(deviations).sum()), float(np.square(values).sum())
    return total if total > 1e-20 * scale else 0.0


def _sums(values: FloatArray, groups: IntArray) -> FloatArray:
    """Return the sum of the values (B, D) of each group, (K, D), sorted by group."""
    order = stable_order(groups)
    return np.add.reduceat(values[order], group_starts(groups[order]), axis=0)


def _centred(values: FloatArray, groups: IntArray) -> FloatArray:
    """Return the values (B, D) minus the mean of each row's group."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return values - (_sums(values, groups) / counts[:, None])[place]


def _pairs(counts: IntArray) -> int:
    """Return the number of ordered pairs within groups of `counts` members."""
    return int((counts * (counts - 1)).sum())


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the known values, or None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
