"""Entrants of `contest.py` that train: Hydromel, and a model written by hand in the usual loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from contest import Step
from torch import Tensor, nn
from training_ours import Ours, compose
from training_peers import optimizer_of, trained_numbers

from runner.common.arrays import IntArray
from runner.embeddings.pretrained import PretrainedEmbedding
from runner.model import device_of, parameter_count, with_pieces
from runner.ragged.batch import Batch

SAME_LOSS = 1e-4  # largest relative difference of the losses of two models
SAME_PREDICTIONS = 0.995  # least share of equal predictions of two models in any batch; rounding decides a few
# Hydromel's model, training rows -> the same model by hand, whose forward returns a loss
MakePeer = Callable[[Any, Batch], Any]
# lengths of the rows, rows per update, a generator -> the rows of each update of an epoch
Order = Callable[[IntArray, int, np.random.Generator], list[IntArray]]


def our_step(work: str, data: str, *more: str) -> Step:
    ours = Ours(compose(work, data, *more))
    ours.model.train()
    return ours.step


def our_prediction_step(work: str, data: str, *more: str) -> Step:
    """Return a step that predicts the validation set once, as an evaluation does.

    In place of a loss the step returns the mean prediction of the longest rows.
    """
    ours = Ours(compose(work, data, *more))
    model, size = ours.model.eval(), ours.config["train"]["eval_batch_size"]
    valid = with_pieces(model, ours.data.splits["valid"].to(device_of(model)))

    def step(number: int) -> tuple[Tensor, int, int]:
        with torch.inference_mode():
            for batch in ours.batching.evaluation_batches(valid, size):
                predicted = model.head.predict(model(batch, None)[0], batch)
        return predicted.float().mean(), valid.real_tokens, 0

    return step


def hand_prediction_step(make: MakePeer, work: str, data: str, *more: str) -> Step:
    """Return a step that predicts the validation set once, sorted by length.

    Fails if it predicts something else than Hydromel.
    """
    ours = Ours(compose(work, data, *more))
    size, valid = ours.config["train"]["eval_batch_size"], ours.data.splits["valid"]
    device = device_of(ours.model)
    peer = make(ours.model.cpu().eval(), valid).eval().to(device)
    order = np.argsort(valid.rows.host_lengths, kind="stable").tolist()
    batches = [order[at : at + size] for at in range(0, len(order), size)]

    def predict(rows: list[int]) -> Tensor:
        batch = peer.collate(rows)
        on_device = {name: one if name == "lengths" else one.to(device) for name, one in batch.items()}
        predicted: Tensor = peer.predict(**on_device)
        return predicted

    def step(number: int) -> tuple[Tensor, int, int]:
        with torch.inference_mode():
            for rows in batches:
                predicted = predict(rows)
        return predicted.float().mean().cpu(), valid.real_tokens, 0

    with torch.inference_mode():
        scores = [(ours.model(batch, None)[0], batch) for batch in (valid.select(np.array(rows)) for rows in batches)]
        pairs = zip((ours.model.head.predict(*one).flatten() for one in scores), map(predict, batches), strict=True)
        shares = [float((mine == theirs.cpu()).float().mean()) for mine, theirs in pairs]
    assert min(shares) > SAME_PREDICTIONS, f"the models differ: {min(shares):.1%} of the predictions are equal"
    return step


def shuffled(lengths: IntArray, size: int, generator: np.random.Generator) -> list[IntArray]:
    """Return batches of shuffled rows."""
    return np.split(generator.permutation(len(lengths)), range(size, len(lengths), size))


def grouped(lengths: IntArray, size: int, generator: np.random.Generator) -> list[IntArray]:
    """Return batches of rows of similar lengths: 50 batches at a time are sorted, as group_by_length does."""
    rows, at_once = generator.permutation(len(lengths)), 50 * size
    groups = [rows[at : at + at_once] for at in range(0, len(rows), at_once)]
    ordered = np.concatenate([group[np.argsort(lengths[group], kind="stable")] for group in groups])
    batches = np.split(ordered, range(size, len(ordered), size))
    return [batches[place] for place in generator.permutation(len(batches))]


def hand_step(make: MakePeer, order: Order, fused: bool, work: str, data: str, *more: str) -> Step:
    """Return the step of the usual loop, over batches in this order, with torch's default or fused Adam."""
    ours, peer, optimizer = made_peer(make, fused, work, data, *more)
    device, rows_at_once, clip = (
        device_of(peer),
        ours.config["batching"]["batch_size"],
        ours.config["train"]["clip_norm"],
    )
    lengths, generator = ours.train.rows.host_lengths, np.random.default_rng(1)
    batches: Iterator[IntArray] = iter(())

    def step(number: int) -> tuple[Tensor, int, int]:
        nonlocal batches
        rows = next(batches, None)
        if rows is None:
            batches = iter(order(lengths, rows_at_once, generator))
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


def made_peer(make: MakePeer, fused: bool, work: str, data: str, *more: str) -> tuple[Ours, Any, torch.optim.Optimizer]:
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
    return ours, peer, optimizer_of(peer, ours.config["optimizer"]["lr"], next(rates), fused)


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
