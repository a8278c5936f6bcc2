"""Bookkeeping between two segments of training: costs, records, messages, and checks for NaN and infinities."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from runner.batching.costs import computed_padding
from runner.batching.plan import digest, no_padding
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.records import shown
from runner.components.measures import LOSS
from runner.distributed.ranks import whole
from runner.ragged.shapes import tokens_in
from runner.tracking.tracker import deliver_or_warn
from runner.training.checkpoint import is_finite
from runner.training.state import Training

log = logging.getLogger(__name__)
_SHOWN_ROWS = 8
_LIVE_AFTER_S = 30.0  # a run that ends sooner is delivered once, at its end: the first delivery may take seconds


class NotFinite(HydromelError):
    """A loss, a gradient or a parameter is NaN or infinite."""


def add_costs(
    t: Training, updates: Sequence[IntArray], supervised: int, seconds: float, update_seconds: list[float]
) -> None:
    """Add a segment's updates to the costs and to the digest.

    `supervised` targets and `seconds` (by the host's clock, which waited for the device at both ends) are those of the
    whole segment; `update_seconds` those of each update, by the device's clock on a GPU.
    """
    lengths, timed = t.train.lengths, t.progress.updates > t.settings.warmup_updates
    computed = tokens_in(t.train.cost_lengths)  # of each row, in what the model reads
    padding, tokens, pieces = no_padding(), 0, 0
    for longest, places in group_by_length(t.batching.longest(t.train.cost_lengths, updates)):
        group = [updates[place] for place in places]
        group_padding = computed_padding(t.batching, t.train, group)
        rows = np.concatenate(group)
        real, pieces_of_group = int(lengths[rows].sum()), int(computed[rows].sum())
        padding = {cause: padding[cause] + group_padding[cause] for cause in padding}
        tokens, pieces = tokens + real, pieces + pieces_of_group
        if timed:
            n_places = pieces_of_group + sum(group_padding.values())
            group_seconds = sum(update_seconds[place] for place in places)
            t.costs.add_length(longest, updates=len(group), real_tokens=real, places=n_places, seconds=group_seconds)
    counts = {
        "tokens": tokens,
        "padded_tokens": sum(t.batching.padding(lengths, updates).values()),
        "pieces": 0 if t.train.pieces is None else pieces,
        "examples": sum(map(len, updates)),
        "updates": len(updates),
        "supervised": supervised,
    }
    t.costs.add(**counts, seconds=seconds, timed=timed, padding=padding)
    t.progress.digest = digest(updates, t.progress.digest)


def group_by_length(longest: IntArray) -> list[tuple[int, list[int]]]:
    """Return the powers of two to which the lengths (U,) round up, ascending, each with the indices of its lengths."""
    exponents = np.frexp(np.maximum(1, longest) - 1)[1]  # the number of binary digits of longest - 1
    return [(1 << int(exponent), np.flatnonzero(exponents == exponent).tolist()) for exponent in np.unique(exponents)]


def record_losses(t: Training, is_complete: bool) -> None:
    """Record the mean loss, the mean and the largest gradient norm and the learning rate of every `log_every` updates.

    A mean over few updates would look like a jump of the curve, so the rest of an epoch joins the updates before it if
    it is shorter than half of `log_every`. Updates that are not recorded yet are part of checkpoints, so that a run
    that was stopped and resumed has the same records as one that was not.
    """
    unrecorded, every = t.progress.unrecorded, t.settings.log_every
    full_rate = t.optimizer.param_groups[0]["initial_lr"]
    while len(unrecorded) >= 1.5 * every or (is_complete and unrecorded):
        n = every if len(unrecorded) >= 1.5 * every else len(unrecorded)
        part, unrecorded = unrecorded[:n], unrecorded[n:]
        step = t.progress.updates - len(unrecorded)
        losses, norms = zip(*part, strict=True)
        figures = {
            "train/loss": float(np.mean(losses)),
            "train/gradient_norm": float(np.mean(norms)),
            "train/gradient_norm_max": max(norms),
            "train/lr": full_rate * t.schedule.factor(step - 1),  # the last update's rate; schedules count from 0
        }
        t.run.log(step, t.progress.epoch + 1, figures)
    t.progress.unrecorded = unrecorded


def record_evaluation(t: Training, metrics: dict[str, object]) -> None:
    """Record the figures on the validation set and the costs so far, and write them to disk."""
    figures = {f"valid/{name}": value for name, value in metrics.items() if isinstance(value, float)}
    cost = {"train/seconds": t.costs.training_seconds, "train/tokens": float(t.costs.real_tokens)}
    t.run.log(t.progress.updates, t.progress.last_epoch, figures | cost)
    t.run.flush()


def report_epoch(t: Training, metrics: dict[str, object], mean_loss: float) -> None:
    """Log one line after an evaluation, and deliver the records so far of a run that takes longer.

    Speed and seconds are those of the epoch's training, or of the part of it that this process made; then come the
    seconds of all epochs.
    """
    costs, progress, value = t.costs, t.progress, metrics[t.metric_name]
    assert isinstance(value, float)
    quality = shown(value, t.measures.scales[t.metric_name].unit)
    tokens, pieces, seconds = np.subtract(costs.work, t.live.cost_before).tolist()
    speed = f"{tokens / max(seconds, 1e-9):7,.0f} tok/s"
    if pieces:
        speed += f"  {pieces / max(seconds, 1e-9):7,.0f} pieces/s"
    loss = f"{mean_loss:6.4f}" if math.isfinite(mean_loss) else f"{'-':>6}"  # a resumed run with nothing left to train
    log.info(
        f"epoch {progress.last_epoch:3d}  updates {progress.updates:5,d}  loss {loss}  "
        f"valid loss {metrics[LOSS]:6.4f}  {t.metric_name} {quality:>6}  {speed}  "
        f"padding {100 * costs.padding_share:4.1f} %  {seconds:5.1f} s, in all {costs.training_seconds:.1f} s"
    )
    if t.clock.total() > _LIVE_AFTER_S:
        deliver_or_warn(t.tracker, t.run.path)


def check_finite(t: Training, first: int, losses: list[float], norms: list[float], updates: Sequence[IntArray]) -> None:
    """Check losses and gradient norms of some updates, the first of which has the number `first`, counted from 1.

    Whoever watches the run sees the losses from here on.

    Raises:
        NotFinite: a loss or a norm is NaN or infinite.
    """
    t.live.losses.extend(losses)
    for place, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            value = f"norm of the gradient is {norm}" if math.isfinite(loss) else f"loss is {loss}"
            raise NotFinite(
                f"the {value} at update {first + place} (epoch {t.progress.epoch + 1}; "
                f"{describe_rows(t, updates[place])}); lower optimizer.lr or train.clip_norm"
            )


def check_parameters(t: Training) -> None:
    """Check the parameters after the last update.

    Raises:
        NotFinite: a parameter has NaN or infinities.
    """
    parameters = dict(t.model.named_parameters())
    if not torch.stack([whole(value.detach().sum()).isfinite() for value in parameters.values()]).all():
        for name, value in parameters.items():  # a sum may also exceed the range of its type
            if not is_finite(whole(value.detach())):
                raise NotFinite(f"{name} has NaN or infinities after update {t.progress.updates}; lower optimizer.lr")


def check_scores(has_nan: list[Tensor]) -> None:
    """Check, after the last batch, whether any batch had NaN scores; `has_nan` has a () tensor for each, on the device.

    Raises:
        NotFinite: some scores are NaN, which metrics and predictions would hide.
    """
    if has_nan and torch.stack(has_nan).any():
        raise NotFinite("the scores of the model are NaN (not a number), so it can neither be evaluated nor predict")


def describe_rows(t: Training, rows: IntArray) -> str:
    """Return a description for messages: `rows 3, 17 of train, counted from 0; lengths 9, 4,012`."""
    shown, more = rows[:_SHOWN_ROWS], ", ..." if len(rows) > _SHOWN_ROWS else ""
    lengths = ", ".join(f"{length:,}" for length in tokens_in(t.train.lengths)[shown])
    return f"rows {', '.join(map(str, shown))}{more} of train, counted from 0; lengths {lengths}{more}"
