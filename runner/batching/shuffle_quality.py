"""How well plans shuffle, and how large their updates are: figures of a plan, without training.

Sorting rows by length saves padding, but rows that stand together are then alike, so an update's gradient is a biased
sample of the data's. These figures say how much, each beside what a plan that knows nothing of the rows would give.

Shapes: B rows of the split, K updates of an epoch, C possible answers. All is counted exactly; nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from runner.batching.plan import fill_rate, group_starts, stable_order
from runner.batching.shapes import Updates, shapes_of
from runner.common.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Spread:
    """Of a positive quantity.

    Attributes:
        variation: its coefficient of variation, standard deviation / mean (0 where the mean is 0).
    """

    mean: float
    variation: float
    smallest: int
    largest: int


@dataclass(frozen=True)
class Share:
    """A share of 0 to 1, or None where it has no meaning, and its mean over all ways to shuffle the rows."""

    value: float | None
    chance: float | None

    @property
    def times_chance(self) -> float | None:
        return None if self.value is None or not self.chance else self.value / self.chance


@dataclass(frozen=True)
class Quality:
    """Figures of a plan; the mean of its epochs where nothing else is said.

    Attributes:
        updates: of an epoch.
        rows_per_update: mean number of rows of an update.
        fill_rate: rows / (updates x batch size); None where no batch size limits updates.
        tokens: real tokens of an update, over all epochs.
        alike_in_length: `between_share` of the lengths: 0 no update differs from another, 1 no row from its neighbours.
        alike_in_answers: `between_share` of the answers.
        length_tells_answer: `correlation` of length and answer inside updates.
        repeated_pairs: of the pairs of rows that stand together in an epoch, how many do so in the next one again.
    """

    updates: float
    rows_per_update: float
    fill_rate: float | None
    tokens: Spread
    alike_in_length: Share
    alike_in_answers: Share
    length_tells_answer: float | None
    repeated_pairs: Share


def measure(
    epochs: Sequence[Updates], lengths: IntArray, answers: FloatArray | None, batch_size: int | None
) -> Quality:
    """The figures of some epochs of a plan.

    Args:
        epochs: the updates of each, in which every row of the split stands once; at least one epoch of one update.
        lengths: (B,) of the rows.
        answers: (B, C) the share of each answer in a row, from `answer_shares`; None where rows have no answers to mix.
        batch_size: rows of a full update, or None.
    """
    members = [membership(updates, len(lengths)) for updates in epochs]
    n_updates = sum(map(len, epochs))
    in_length = [between_share(lengths, member) for member in members]
    in_answers = [None if answers is None else between_share(answers, member) for member in members]
    inside = [None if answers is None else correlation(lengths, answers, member) for member in members]
    chance = _mean([chance_between_share(member) for member in members])
    pairs = [repeated_pairs(before, after) for before, after in pairwise(members)]
    return Quality(
        updates=n_updates / len(epochs),
        rows_per_update=len(lengths) * len(epochs) / n_updates,
        fill_rate=None if batch_size is None else _mean([fill_rate(updates, batch_size) for updates in epochs]),
        tokens=spread(np.concatenate([shapes_of(updates, lengths).tokens for updates in epochs])),
        alike_in_length=Share(_mean(in_length), chance),
        alike_in_answers=Share(_mean(in_answers), None if answers is None else chance),
        length_tells_answer=_mean(inside),
        repeated_pairs=Share(_mean(pairs), _mean([chance_repeated_pairs(member) for member in members[1:]])),
    )


def membership(updates: Updates, n_rows: int) -> IntArray:
    """(B,) the number of the update in which each row stands.

    Raises:
        ValueError: a row that stands in no update, or in more than one.
    """
    rows = np.concatenate(updates)
    if len(rows) != n_rows or (np.bincount(rows, minlength=n_rows) != 1).any():
        raise ValueError(f"{len(rows)} places for {n_rows} rows; a plan has each row exactly once")
    member = np.empty(n_rows, dtype=np.int64)
    member[rows] = np.repeat(np.arange(len(updates)), [len(update) for update in updates])
    return member


def spread(values: IntArray) -> Spread:
    mean = float(values.mean())
    return Spread(mean, float(values.std()) / mean if mean else 0.0, int(values.min()), int(values.max()))


def between_share(values: IntArray | FloatArray, groups: IntArray) -> float | None:
    """The share of a variance that lies between groups: `sum_g n_g |m_g - m|^2 / sum_i |x_i - m|^2`.

    m_g are the means of groups, m that of all. Of one column this is eta squared, the correlation ratio of Pearson
    (1905) and Fisher (1925); of one 0/1 column for each label it is the R squared of Light and Margolin (1971), which
    equals the tau of Goodman and Kruskal (1954).

    Args:
        values: (B,) or (B, D).
        groups: (B,) the group of each row, counted from 0.

    Returns:
        0 to 1; None where all values are equal.
    """
    columns = _columns(values)
    deviations = columns - columns.mean(axis=0)
    total = _squares(deviations, columns)
    if not total:
        return None
    counts = np.unique(groups, return_counts=True)[1]
    return float((np.square(_sums(deviations, groups)).sum(axis=1) / counts).sum()) / total


def chance_between_share(groups: IntArray) -> float | None:
    """The mean of `between_share` over all permutations of the rows: (K - 1) / (B - 1); None for a single row."""
    return (len(np.unique(groups)) - 1) / (len(groups) - 1) if len(groups) > 1 else None


def repeated_pairs(before: IntArray, after: IntArray) -> float | None:
    """Of the pairs of rows that share an update in `before` (B,), the share that do so in `after` (B,) too.

    With n_ij rows in update i before and j after, `sum_ij n_ij (n_ij - 1) / sum_i n_i (n_i - 1)` (Wallace 1983), which
    counts all pairs without forming one. None where no two rows stand together.
    """
    together = _pairs(np.bincount(before))
    both = np.unique(before * (int(after.max()) + 1) + after, return_counts=True)[1]
    return _pairs(both) / together if together else None


def chance_repeated_pairs(after: IntArray) -> float | None:
    """The mean of `repeated_pairs` where rows are dealt at random to updates as large as those of `after` (B,).

    Any pair then stands together with probability `sum_j n_j (n_j - 1) / (B (B - 1))`; None for a single row.
    """
    return _pairs(np.bincount(after)) / (len(after) * (len(after) - 1)) if len(after) > 1 else None


def correlation(lengths: IntArray, answers: FloatArray, groups: IntArray | None) -> float | None:
    """How far a row's length tells its answer: `sqrt(sum_c cov(x, y_c)^2 / (var x * sum_c var y_c))`, 0 to 1.

    The square is the share of the answers' variance that is linear in the length (the redundancy of Stewart and Love
    1968). Of two labels it is the absolute value of their ordinary (point-biserial) correlation with the length.

    Args:
        lengths: (B,).
        answers: (B, C) from `answer_shares`.
        groups: (B,) count deviations from the mean of each group, not of all (correlation inside groups), or None.

    Returns:
        None where the length or the answer never varies (inside groups).
    """
    groups = np.zeros(len(lengths), dtype=np.int64) if groups is None else groups
    columns = _columns(lengths)
    x, y = _centred(columns, groups), _centred(answers, groups)
    variances = _squares(x, columns) * _squares(y, answers)
    return float(np.sqrt(np.square(x.T @ y).sum() / variances)) if variances else None


def answer_shares(ids: IntArray, counts: IntArray, n_answers: int) -> FloatArray:
    """(B, C) the share of each answer among those of a row; an empty row has none of any.

    Args:
        ids: (N,) answers from 0, row after row.
        counts: (B,) how many belong to each row: 1, or its length where every token has one.
        n_answers: C.
    """
    cells = np.repeat(np.arange(len(counts)) * n_answers, counts) + ids
    found = np.bincount(cells, minlength=len(counts) * n_answers).reshape(len(counts), n_answers)
    return found / np.maximum(1, counts)[:, None]


def _columns(values: IntArray | FloatArray) -> FloatArray:
    """(B, D) a copy as floats."""
    return np.array(values, dtype=np.float64).reshape(len(values), -1)


def _squares(deviations: FloatArray, values: FloatArray) -> float:
    """Their sum; 0 where what is left beside `values` is rounding alone."""
    total, scale = float(np.square(deviations).sum()), float(np.square(values).sum())
    return total if total > 1e-20 * scale else 0.0


def _sums(values: FloatArray, groups: IntArray) -> FloatArray:
    """(K, D) the sum of the values (B, D) of each group, by rising group."""
    order = stable_order(groups)
    sums: FloatArray = np.add.reduceat(values[order], group_starts(groups[order]), axis=0)
    return sums


def _centred(values: FloatArray, groups: IntArray) -> FloatArray:
    """(B, D) less the mean of each row's group."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return values - (_sums(values, groups) / counts[:, None])[place]


def _pairs(counts: IntArray) -> int:
    """Ordered pairs within groups of `counts` members."""
    return int((counts * (counts - 1)).sum())


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
