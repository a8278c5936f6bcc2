"""Entrants of `contest.py` that train: Hydromel, and a model written by hand in the usual loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from contest import Step
from torch import Tensor, nn
from training_ours import Ours, compose
from training_peers import optimizer_of, trained_numbers

from runner.embeddings.pretrained import PretrainedEmbedding
from runner.model import device_of, parameter_count
from runner.ragged.batch import Batch

SAME_LOSS = 1e-4  # largest relative difference of the losses of two models
# Hydromel's model, training rows -> the same model by hand, whose forward returns a loss
MakePeer = Callable[[Any, Batch], Any]


def our_step(work: str, data: str, *more: str) -> Step:
    ours = Ours(compose(work, data, *more))
    ours.model.train()
    return ours.step


def hand_step(make: MakePeer, work: str, data: str, *more: str) -> Step:
    """Return the step of the usual loop over shuffled rows."""
    ours, peer, optimizer = made_peer(make, work, data, *more)
    device, rows_at_once, clip = (
        device_of(peer),
        ours.config["batching"]["batch_size"],
        ours.config["train"]["clip_norm"],
    )
    lengths, order = ours.train.rows.host_lengths, np.random.default_rng(1)
    batches = iter(())

    def step(number: int) -> tuple[Tensor, int, int]:
        nonlocal batches
        rows = next(batches, None)
        if rows is None:
            batches = iter(np.split(order.permutation(len(lengths)), range(rows_at_once, len(lengths), rows_at_once)))
            rows = next(batches)
        optimizer.zero_grad()
        batch = peer.collate(rows.tolist())
        loss = peer(**{name: one if name == "lengths" else one.to(device) for name, one in batch.items()})
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), clip)
        optimizer.step()
        return loss.detach(), *tokens_of(batch)

    return step


def tokens_of(batch: dict[str, Tensor]) -> tuple[int, int]:
    """Return the real tokens and the padded positions of a collated batch; rows may be cut, and `lengths` are not."""
    places = batch["words"].numel()
    real = int(batch["lengths"].clamp(max=batch["words"].shape[1]).sum())
    return real, places - real


def made_peer(make: MakePeer, work: str, data: str, *more: str) -> tuple[Ours, Any, torch.optim.Optimizer]:
    """Return Hydromel's model, the peer and its optimiser, with Hydromel's `malloc` and `matmul`.

    Fails if the peer is not the same model.
    """
    ours = Ours(compose(work, data, "batching=padmask", f"batching.batch_size={batch_size_of(work, data)}", *more))
    device = device_of(ours.model)
    peer = make(ours.model.cpu(), ours.train.to(torch.device("cpu"))).to(device)
    ours.model.to(device)
    assert trained_numbers(peer) == parameter_count(ours.model), "the models differ in their number of parameters"
    apart = apart_from(peer, ours)
    assert apart < SAME_LOSS or getattr(peer, "width", None), f"the models differ: their losses differ by {apart:.1e}"
    rates = (one.learning_rate_factors["rows"] for one in ours.model.modules() if isinstance(one, PretrainedEmbedding))
    return ours, peer, optimizer_of(peer, ours.config["optimizer"]["lr"], next(rates))


def batch_size_of(work: str, data: str) -> int:
    """Return the batch size of the work's config, whatever the strategy."""
    return int(compose(work, data)["batching"]["batch_size"])


def apart_from(peer: Any, ours: Ours) -> float:
    """Return the relative difference of the two losses on the same rows, without dropout."""
    rows = ours.rows(0)
    (batch,) = ours.batching.micro_batches(ours.train, rows)
    ours.model.eval()
    peer.eval()
    with torch.no_grad():
        loss = ours.model.head.loss(ours.model(batch, None)[0], batch)
        theirs = peer(**{name: one.to(device_of(peer)) for name, one in peer.collate(rows.tolist()).items()})
        apart = abs(float(theirs) / (float(loss.total) / loss.count) - 1)
    ours.model.train()
    peer.train()
    return apart
