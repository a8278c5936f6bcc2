"""The targets that are measured, by the same rules for every metric.

- Ignored targets count nowhere. The targets around them become neighbours, for example where all but the first piece of
a word are ignored.
- Targets that `max_length` cut off count as missed: their prediction is `NO_PREDICTION`, which equals no target.
- Targets that the training set lacks count as missed too, since no model predicts them. They have no loss.

Everything is computed on the host, so nothing waits for a device.

Shapes: B rows, N targets of a batch, M targets that count.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import BoolArray, IntArray
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, copy_to_device

NO_PREDICTION = -1  # the predicted id at a target whose token the model never read


def scored_predictions(values: Tensor, batch: Batch, missing: float = NO_PREDICTION) -> tuple[Tensor, Batch]:
    """Return the predictions of the targets that count, (M,), and the batch with these targets.

    Args:
        values: (N,) predictions, or any other value of each target of the batch.
        missing: the value of targets that were cut off.
    """
    if not isinstance(batch.target, Ragged):
        return values, batch
    if batch.cut is not None:
        values = whole_values(values, batch, missing)
        batch = replace(batch, target=whole_targets(batch), cut=None)
    kept = batch.targets_on_host() != IGNORED
    return (values, batch) if kept.all() else (_select(values, np.flatnonzero(kept)), _with_targets(batch, kept))


def scored_losses(values: Tensor | Ragged, batch: Batch, n_classes: int) -> tuple[Tensor, Batch]:
    """Return the losses that count, (M,), and the batch with the targets that have one: ids below `n_classes`.

    Args:
        values: the loss of each target, packed if there is one per token; or (B,), of rows with one target per token.
    """
    plain, batch = values.tokens() if isinstance(values, Ragged) else values, replace(batch, cut=None)
    is_per_token = isinstance(batch.target, Ragged)
    if isinstance(batch.target, Tensor) and (batch.target.is_floating_point() or batch.target.dim() > 1):
        return plain, batch  # these targets are no ids
    ids = batch.targets_on_host()
    kept = (ids >= 0) & (ids < n_classes)
    if kept.all():
        return plain, batch
    if is_per_token == isinstance(values, Ragged):
        plain = _select(plain, np.flatnonzero(kept))
    return plain, _with_targets(batch, kept)


def whole_targets(batch: Batch) -> Ragged:
    """Return the targets of all tokens, packed: in each row those of the batch, then those that were cut off."""
    assert isinstance(batch.target, Ragged)
    if batch.cut is None:
        return batch.target
    parts, order = (batch.target, batch.cut), _order(batch.target, batch.cut)
    rows = Rows(batch.target.rows.host_lengths + batch.cut.rows.host_lengths, batch.target.rows.device)
    ids = np.concatenate([part.on_host() for part in parts])[order]
    return Ragged(_select(torch.cat([part.tokens() for part in parts]), order), rows, "packed", ids)


def whole_values(values: Tensor, batch: Batch, missing: float = NO_PREDICTION) -> Tensor:
    """Return a value for each of `whole_targets`: those of the batch's targets (N,), and `missing` where it was cut."""
    if not isinstance(batch.target, Ragged) or batch.cut is None:
        return values
    cut = values.new_full((batch.cut.rows.n_tokens,), missing)
    return _select(torch.cat([values, cut]), _order(batch.target, batch.cut))


def _order(*parts: Ragged) -> IntArray:
    """Return the order that turns the concatenated parts into rows; row i joins the rows i of all parts."""
    row = np.concatenate([np.repeat(np.arange(part.rows.n_rows), part.rows.host_lengths) for part in parts])
    return np.argsort(row, kind="stable")


def _select(values: Tensor, places: IntArray) -> Tensor:
    return values.index_select(0, copy_to_device(places, values.device))


def _with_targets(batch: Batch, kept: BoolArray) -> Batch:
    """Return the batch without the targets at which `kept` (N,) is false; its features stay as they are."""
    places = np.flatnonzero(kept)
    if isinstance(batch.target, Ragged):
        before = np.concatenate(([0], np.cumsum(kept)))[batch.target.rows.host_offsets]
        rows = Rows(np.diff(before), batch.target.rows.device)
        ids = batch.target.on_host()[places]
        return replace(batch, target=Ragged(_select(batch.target.tokens(), places), rows, "packed", ids))
    host = None if batch.host is None else batch.host[places]
    return replace(batch, target=_select(batch.target, places), index=batch.index[places], host=host)
