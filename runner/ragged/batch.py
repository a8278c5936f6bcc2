"""`Batch`: the features and targets of some rows of a split, with their row numbers. A whole split is a `Batch` too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_rows

IGNORED = -100  # id of a token's target that loss, metrics and counts leave out, as in `F.cross_entropy`


@dataclass(frozen=True)
class PieceCounts:
    """The number of pieces that a model reads of each row of a split, special ones included."""

    # (B,), or (B, texts) of each text of a pair and of each window of a long row; -1: the row has fewer texts
    lengths: IntArray
    always_padded: bool  # the model pads packed rows itself

    def select(self, indices: IntArray) -> PieceCounts:
        """Return the counts of the chosen rows."""
        return replace(self, lengths=self.lengths[indices])


@dataclass(frozen=True)
class Batch:
    """Some rows of a split, ready for a model.

    Results are stored by `index`, so batches may have any order. A row of a split has one text, or two (`texts`), which
    are then neighbouring rows of the features: encoders never read one text of a pair with the other. Rows whose only
    target is ignored are left out of a split; tokens whose target is `IGNORED` stay: their neighbours need them.
    """

    features: dict[str, Ragged]  # integer ids by feature name; all share one `Rows`, which has `texts` x B rows
    target: Tensor | Ragged  # one target per row, (B,), or one per token
    index: IntArray  # (B,) row numbers in the order of the file, on the host
    carries_state: bool = False  # the rows are windows of texts (streams): a state is carried from batch to batch
    # Targets, one per token, that `max_length` cut off the end of each row: no model sees them, evaluation counts them
    cut: Ragged | None = None
    host: npt.NDArray[np.integer] | None = None  # copy of targets (B,) that were sent from the host, as `Ragged.host`
    left_out: int = 0  # for a whole split: number of ignored targets that `target` lacks, since their rows are left out
    pieces: PieceCounts | None = (
        None  # what the model reads of the rows, if not their tokens (`runner.model.with_pieces`)
    )

    @property
    def rows(self) -> Rows:
        """The rows that all features share."""
        return next(iter(self.features.values())).rows

    @property
    def texts(self) -> int:
        """The number of texts of each row: 1, or 2 for pairs that are encoded apart."""
        return self.rows.n_rows // len(self.index) if len(self.index) else 1

    @property
    def lengths(self) -> IntArray:
        """The number of tokens of each row, (B,), or of each of its texts, (B, texts), on the host."""
        lengths = self.rows.host_lengths
        return lengths if self.texts == 1 else lengths.reshape(-1, self.texts)

    @property
    def cost_lengths(self) -> IntArray:
        """The lengths that decide what rows cost, as `lengths`: numbers of pieces if the model reads these."""
        return self.lengths if self.pieces is None else self.pieces.lengths

    @property
    def single(self) -> Rows:
        """Rows of length 1, for vectors of whole rows, (B, *)."""
        if self.texts == 1:
            return self.rows.single
        seeds = self.rows.seeds
        single = Rows(np.ones(len(self.index), dtype=np.int64), self.rows.device)
        return single.with_seeds(None if seeds is None else seeds[:: self.texts])

    @property
    def targets_per_row(self) -> IntArray:
        """(B,) number of targets of each row, not from the features, which count padding too if unmasked."""
        if isinstance(self.target, Ragged):
            return self.target.rows.host_lengths
        return np.ones(len(self.index), dtype=np.int64)

    @property
    def n_targets(self) -> int:
        """The number of targets that are not ignored, from host data only."""
        return int((self.target.on_host() != IGNORED).sum()) if isinstance(self.target, Ragged) else len(self.index)

    @property
    def real_tokens(self) -> int:
        """The number of tokens without padding."""
        return self.rows.n_tokens

    @property
    def padded_tokens(self) -> int:
        """The number of padded positions in memory: 0 if packed."""
        return next(iter(self.features.values())).padded_tokens

    def targets_on_host(self) -> npt.NDArray[np.integer]:
        """Return the targets, (N,) or (B,), without synchronising; a ValueError if the host has no copy of them."""
        if isinstance(self.target, Ragged):
            return self.target.on_host()
        if self.host is None and self.target.device.type != "cpu":
            raise ValueError(f"these targets are on {self.target.device} only; keep a copy on the host (`Batch.to`)")
        return self.target.numpy() if self.host is None else self.host

    def select(self, indices: IntArray, width: int | None = None, carries_state: bool = False) -> Batch:
        """Return the chosen rows, packed, by index arithmetic; `width` is used by a later `pad`."""
        texts = indices if self.texts == 1 else (indices[:, None] * self.texts + np.arange(self.texts)).ravel()
        rows, tokens = select_rows(self.rows, texts, width)
        features = {name: feature.select_by(rows, tokens) for name, feature in self.features.items()}
        if isinstance(self.target, Ragged):
            target: Tensor | Ragged = self.target.select_by(rows, tokens)
        else:
            target = self.target.index_select(0, rows.send(np.ascontiguousarray(indices)))
        cut = None if self.cut is None else self.cut.select(indices)
        host = None if self.host is None else self.host[indices]
        pieces = None if self.pieces is None else self.pieces.select(indices)
        return Batch(features, target, self.index[indices], carries_state, cut, host, pieces=pieces)

    def pad(self) -> Batch:
        """Return the batch with padded features; padding has id 0 (`<pad>`)."""
        return replace(self, features={name: feature.pad() for name, feature in self.features.items()})

    def unmasked(self) -> Batch:
        """Return a deliberately wrong layout: padded, with all rows as long as the widest. Targets stay correct."""
        full = Rows(np.full(self.rows.n_rows, self.rows.width, dtype=np.int64), self.rows.device, self.rows.width)
        full = full.with_seeds(self.rows.seeds)
        return replace(self, features={name: _as_full(feature.pad(), full) for name, feature in self.features.items()})

    def with_seeds(self, seeds: Tensor | None) -> Batch:
        """Return the batch with a dropout seed per row, (B,) int64, so that dropout does not depend on the batch."""
        if seeds is not None and self.texts > 1:  # each text has its own
            seeds = (seeds[:, None] * self.texts + torch.arange(self.texts, device=seeds.device)).flatten()
        return self._with_rows(lambda rows: rows.with_seeds(seeds))

    def step_by_step(self) -> Batch:
        """Return the batch marked so that recurrent layers step through time instead of calling a fused kernel."""
        return self._with_rows(Rows.step_by_step)

    def _with_rows(self, change: Callable[[Rows], Rows]) -> Batch:
        """Return the batch with `change` applied to its rows."""
        shared = cache(change)  # features that shared rows still share them
        features = {name: replace(feature, rows=shared(feature.rows)) for name, feature in self.features.items()}
        target = self.target
        if isinstance(target, Ragged):
            target = replace(target, rows=shared(target.rows))
        return replace(self, features=features, target=target)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        if self.rows.device == device:
            return self
        move = cache(lambda rows: rows.to(device))  # features that shared rows still share them
        features = {name: feature.to(device, move(feature.rows)) for name, feature in self.features.items()}
        cut = None if self.cut is None else self.cut.to(device)
        if isinstance(self.target, Ragged):
            return replace(self, features=features, target=self.target.to(device, move(self.target.rows)), cut=cut)
        host = self.target.numpy() if self.target.device.type == "cpu" else self.host
        return replace(self, features=features, target=self.target.to(device, non_blocking=True), cut=cut, host=host)


def _as_full(padded: Ragged, full: Rows) -> Ragged:
    """Return the same positions with rows of full length, so that padding counts as tokens, also in the host's ids."""
    if padded.host is None:
        return Ragged(padded.values, full, "padded")
    host = np.zeros(full.n_tokens, dtype=padded.host.dtype)
    host[padded.rows.host_flat] = padded.host
    return Ragged(padded.values, full, "padded", host)
