"""The variations of a batch: its examples, their order, the padded width and its content. A check varies one factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from runner.audit.tracing.observe import Setting
from runner.common.arrays import BoolArray, IntArray

# name -> the varied factor, in the order of execution: checks that others rely on come first
CHECKS = {
    "repeat": "the same examples again, after others",
    "neighbours": "the other examples of the batch, at equal lengths: no padding",
    "order": "the order of the examples",
    "duplicates": "an example that occurs several times in the batch",
    "mixed_lengths": "the number and the lengths of the other examples",
    "extremes": "no token, one token, the longest; a batch of one",
    "width": "padding up to 4x wider than needed",
    "content": "other finite values in the padding",
    "huge": "1e30 in the padding, after every layer",
    "nan": "NaN in the padding, after every layer",
    "batches": "the strategy's own batches, for training and evaluation",
    "loss": "loss and gradients of one update, whole and split",
    "causality": "the tokens after each token: cut off, or replaced (tasks that predict the next token)",
    "update": "the training loop's own gradients, over the strategy's micro-batches",
    "metric": "the metric's values, over batches of other sizes and order",
    "dropout": "each example's own dropout",
    "float32": "single precision",
    "bf16": "bfloat16",
    "fp16": "half precision",
}
NEEDS_PADDING = ("width", "content", "huge", "nan")


@dataclass(frozen=True)
class BatchSpec:
    """A specification of one batch: examples that are run together."""

    rows: tuple[int, ...]  # numbers of the examples, in the batch's order
    setting: Setting = field(default_factory=Setting)  # width and content of the padding
    against: BatchSpec | None = None  # reference, the same rows in another layout or order; None: single-example runs


def batch_specs(lengths: IntArray, is_even: BoolArray, has_padding: bool, seed: int) -> dict[str, list[BatchSpec]]:
    """Return the batches of each check that compares batches, from the (R,) lengths of all examples.

    `is_even` (R,) is that of `Subject`. A check without a batch does not apply. `seed` is that of the random choice of
    examples.
    """
    rng = np.random.default_rng(seed)
    all_rows = _uneven_first(rng.permutation(len(lengths)), lengths)
    group = tuple(_uneven(lengths, rng))
    plain = BatchSpec(group)
    sizes = [n for n in (2, 3, 5, len(all_rows)) if n <= len(all_rows)]

    def varied(*settings: Setting) -> list[BatchSpec]:
        return [BatchSpec(group, setting, BatchSpec(group, Setting(setting.widen))) for setting in settings]

    runs = {
        "neighbours": [BatchSpec(tuple(same)) for same in _equally_long(np.where(is_even, lengths, 0), rng)],
        "order": [
            BatchSpec(order, against=plain)
            for order in (group[::-1], tuple(rng.permutation(group).tolist()), tuple(sorted(group)))
        ],
        "duplicates": [BatchSpec((group[0], group[0])), BatchSpec((group[0],) * 3)],
        "mixed_lengths": [BatchSpec(tuple(all_rows[:n].tolist())) for n in sizes],
        "extremes": [BatchSpec(rows) for rows in _extremes(lengths)],
        "width": [BatchSpec(rows, Setting(n), BatchSpec(rows)) for rows in (group[:1], group) for n in (2, 4)],
        "content": varied(Setting(1, "other"), Setting(2, "other")),
        "huge": varied(Setting(1, "huge"), Setting(4, "huge")),
        "nan": varied(Setting(1, "nan"), Setting(4, "nan")),
    }
    return {name: [] if name in NEEDS_PADDING and not has_padding else batches for name, batches in runs.items()}


def _uneven_first(order: IntArray, lengths: IntArray) -> IntArray:
    """Swap an example of another length than the first into second place, if there is one.

    The smallest batch of the check `mixed_lengths` then holds padding.
    """
    others = np.flatnonzero(lengths[order] != lengths[order[0]])
    if len(others):
        order[[1, others[0]]] = order[[others[0], 1]]
    return order


def _uneven(lengths: IntArray, rng: np.random.Generator, size: int = 6) -> list[int]:
    """Return up to `size` examples in random order, evenly spread by length, without empty rows where possible."""
    order = np.argsort(lengths, kind="stable")
    candidates = order[lengths[order] > 0]
    candidates = candidates if len(candidates) else order
    picked = candidates[np.unique(np.linspace(0, len(candidates) - 1, min(size, len(candidates))).astype(int))]
    return [int(row) for row in rng.permutation(picked)]


def _equally_long(lengths: IntArray, rng: np.random.Generator) -> list[Sequence[int]]:
    """Return groups of equal length, for up to three lengths: two of the examples, and all of them."""
    groups: list[Sequence[int]] = []
    values, counts = np.unique(lengths[lengths > 0], return_counts=True)
    for value in values[counts >= 2][np.argsort(-values[counts >= 2])][:3]:
        rows = rng.permutation(np.flatnonzero(lengths == value)).tolist()
        groups += [rows[:2], rows] if len(rows) > 2 else [rows]
    return groups


def _extremes(lengths: IntArray) -> list[tuple[int, ...]]:
    longest = int(np.argmax(lengths))
    empty, single = (tuple(np.flatnonzero(lengths == length)[:2].tolist()) for length in (0, 1))
    groups = ((longest,), (*empty, longest, *single), (longest, *single), (*single, *empty), empty, single)
    return [group for group in dict.fromkeys(groups) if group]
