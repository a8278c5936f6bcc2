"""`Batch`: the features of some rows, their targets, and which rows of the file they are. A whole split is one too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, choose


@dataclass(frozen=True)
class Batch:
    """Some rows of a split, ready for a model.

    Attributes:
        features: name -> integer ids; all share one `Rows`.
        target: (B,) one answer a row, or a `Ragged` of one answer a token.
        index: (B,) on the host: the row numbers in the file's order, so that nothing is ever unsorted.
        continues: the rows are windows of texts (streams), so a state is carried from batch to batch.
    """

    features: dict[str, Ragged]
    target: Tensor | Ragged
    index: IntArray
    continues: bool = False

    @property
    def rows(self) -> Rows:
        return next(iter(self.features.values())).rows

    @property
    def real_tokens(self) -> int:
        return self.rows.n_tokens

    @property
    def padded_tokens(self) -> int:
        """Padding in memory: 0 when packed."""
        return next(iter(self.features.values())).padded_tokens

    def select(self, chosen: IntArray, width: int | None = None, continues: bool = False) -> Batch:
        """The chosen rows, packed, by index arithmetic; `width` is kept for a later `pad`."""
        rows, tokens = choose(self.rows, chosen, width)
        features = {name: feature.select_by(rows, tokens) for name, feature in self.features.items()}
        if isinstance(self.target, Ragged):
            target: Tensor | Ragged = self.target.select_by(rows, tokens)
        else:
            target = self.target.index_select(0, rows._send(np.ascontiguousarray(chosen)))
        return Batch(features, target, self.index[chosen], continues)

    def pad(self) -> Batch:
        """Features in the padded layout; id 0 (`<pad>`) stands in the padding."""
        return replace(self, features={name: feature.pad() for name, feature in self.features.items()})

    def unmasked(self) -> Batch:
        """The known-wrong layout: padded, and every row claims to be as long as the widest. Targets stay right."""
        full = Rows(np.full(self.rows.n_rows, self.rows.width, dtype=np.int64), self.rows.device, self.rows.width)
        full = full.with_seeds(self.rows.seeds)
        return replace(self, features={name: _claiming(feature.pad(), full) for name, feature in self.features.items()})

    def with_seeds(self, seeds: Tensor | None) -> Batch:
        """Each row draws its dropout from its own seed, (B,) int64: then it loses the same values in any company."""
        return self._with_rows(lambda rows: rows.with_seeds(seeds))

    def step_by_step(self) -> Batch:
        """Recurrent layers step their cells through time instead of calling a fused kernel."""
        return self._with_rows(Rows.step_by_step)

    def _with_rows(self, change: Callable[[Rows], Rows]) -> Batch:
        changed: dict[int, Rows] = {}  # rows that were shared stay shared

        def put(feature: Ragged) -> Ragged:
            if id(feature.rows) not in changed:
                changed[id(feature.rows)] = change(feature.rows)
            return replace(feature, rows=changed[id(feature.rows)])

        features = {name: put(feature) for name, feature in self.features.items()}
        target = put(self.target) if isinstance(self.target, Ragged) else self.target
        return replace(self, features=features, target=target)

    def to(self, device: torch.device) -> Batch:
        if self.rows.device == device:
            return self
        moved = {id(self.rows): self.rows.to(device)}  # rows that were shared stay shared

        def move(feature: Ragged) -> Ragged:
            return feature.to(device, moved.setdefault(id(feature.rows), feature.rows.to(device)))

        features = {name: move(feature) for name, feature in self.features.items()}
        target = move(self.target) if isinstance(self.target, Ragged) else self.target.to(device, non_blocking=True)
        return replace(self, features=features, target=target)


def _claiming(padded: Ragged, full: Rows) -> Ragged:
    """The same places under rows that claim to be full; the padding counts as ids on the host, too."""
    if padded.host is None:
        return Ragged(padded.values, full, "padded")
    host = np.zeros(full.n_tokens, dtype=padded.host.dtype)
    host[padded.rows.host_flat] = padded.host
    return Ragged(padded.values, full, "padded", host)
