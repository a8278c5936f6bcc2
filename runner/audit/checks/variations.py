"""What is varied: which examples stand together, in which order, how wide, beside what. One check, one factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from runner.audit.tracing.observe import Setting
from runner.common.arrays import IntArray

# name -> what it varies; in the order in which they are made, the ones that others rely on first
CHECKS = {
    "repeat": "the same examples again, after others",
    "neighbours": "who stands beside an example, at equal lengths: no padding",
    "order": "the order of the examples",
    "duplicates": "an example that stands there twice",
    "company": "the number and the lengths of the neighbours",
    "extremes": "no token, one token, the longest; a batch of one",
    "width": "padding up to 4x wider than needed",
    "content": "other finite content in the padding",
    "huge": "1e30 in the padding, behind every layer",
    "nan": "NaN in the padding, behind every layer",
    "batches": "the strategy's own batches, of training and evaluation",
    "loss": "one update's loss and gradients, whole and cut",
    "update": "the training loop's own gradients, over the strategy's micro-batches",
    "metric": "the metric's figures, by batches of other sizes and order",
    "dropout": "each example's own dropout",
    "float32": "single precision",
    "bf16": "bfloat16",
    "fp16": "half precision",
}
NEEDS_PADDING = ("width", "content", "huge", "nan")


@dataclass(frozen=True)
class Company:
    """Examples that are run together.

    Attributes:
        rows: their numbers, in the order in which they stand.
        setting: how they are laid out.
        against: the same rows, otherwise laid out or ordered, with which they are compared; None: each of them alone.
    """

    rows: tuple[int, ...]
    setting: Setting = field(default_factory=Setting)
    against: Company | None = None


def companies(lengths: IntArray, has_padding: bool, seed: int) -> dict[str, list[Company]]:
    """The runs of each check that is made of runs. A check without a run does not apply.

    Args:
        lengths: (R,) of all examples.
        has_padding: whether the layout can hold padding.
        seed: of the groups.
    """
    rng = np.random.default_rng(seed)
    everyone = _uneven_first(rng.permutation(len(lengths)), lengths)
    group = tuple(_uneven(lengths, rng))
    plain = Company(group)

    def varied(*settings: Setting) -> list[Company]:
        return [Company(group, one, Company(group, Setting(one.widen))) for one in settings]

    runs = {
        "neighbours": [Company(tuple(same)) for same in _equally_long(lengths, rng)],
        "order": [Company(one, against=plain) for one in (group[::-1], _shuffled(group, rng), tuple(sorted(group)))],
        "duplicates": [Company((group[0], group[0])), Company((group[0],) * 3)],
        "company": [
            Company(tuple(int(row) for row in everyone[:n])) for n in (2, 3, 5, len(everyone)) if n <= len(everyone)
        ],
        "extremes": [Company(rows) for rows in _extremes(lengths)],
        "width": [Company(rows, Setting(n), Company(rows)) for rows in (group[:1], group) for n in (2, 4)],
        "content": varied(Setting(1, "other"), Setting(2, "other")),
        "huge": varied(Setting(1, "huge"), Setting(4, "huge")),
        "nan": varied(Setting(1, "nan"), Setting(4, "nan")),
    }
    return {name: [] if name in NEEDS_PADDING and not has_padding else made for name, made in runs.items()}


def _uneven_first(order: IntArray, lengths: IntArray) -> IntArray:
    """The same order, but for a second example that is not as long as the first, if there is one."""
    others = np.flatnonzero(lengths[order] != lengths[order[0]])
    if len(others):
        order[[1, others[0]]] = order[[others[0], 1]]
    return order


def _shuffled(group: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(row) for row in rng.permutation(group))


def _uneven(lengths: IntArray, rng: np.random.Generator, size: int = 6) -> list[int]:
    """Some examples, the longest and a shortest of at least one token among them, in random order."""
    order = np.argsort(lengths, kind="stable")
    some = order[lengths[order] > 0]
    if len(some) == 0:
        some = order
    picked = some[np.unique(np.linspace(0, len(some) - 1, min(size, len(some))).astype(int))]
    return [int(row) for row in rng.permutation(picked)]


def _equally_long(lengths: IntArray, rng: np.random.Generator) -> list[Sequence[int]]:
    """For up to three lengths: the examples of that length, all and two of them."""
    found: list[Sequence[int]] = []
    values, counts = np.unique(lengths[lengths > 0], return_counts=True)
    for value in values[counts >= 2][np.argsort(-values[counts >= 2])][:3]:
        rows = [int(row) for row in rng.permutation(np.flatnonzero(lengths == value))]
        found += [rows[:2], rows] if len(rows) > 2 else [rows]
    return found


def _extremes(lengths: IntArray) -> list[tuple[int, ...]]:
    longest = int(np.argmax(lengths))
    empty = [int(row) for row in np.flatnonzero(lengths == 0)[:2]]
    single = [int(row) for row in np.flatnonzero(lengths == 1)[:2]]
    groups = [
        (longest,),
        (*empty, longest, *single),
        (longest, *single),
        (*single, *empty),
        tuple(empty),
        tuple(single),
    ]
    return list(dict.fromkeys(group for group in groups if group))
