"""What a training says and waits for on the device of `pretended`, for tests; in a process that has it for itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.components.run_components import Components
from runner.config.schema import RunConfig
from runner.encoders.identity import Identity
from runner.experiment import preparation
from runner.experiment.preparation import prepare
from runner.interfaces import State
from runner.ragged.ragged import Ragged
from runner.tracking.run_folder import RunFolder
from runner.training import loop
from runner.training.optimizers import averaged
from runner.training.state import Training
from tests.helpers import composed, pretended

UPDATES = 3


@dataclass(frozen=True)
class Seen:
    """Of some updates in one segment, and one evaluation.

    Attributes:
        losses: of each update.
        metrics: on valid.
        waits: operation and place, where the host would have waited for the device.
        copies: place -> arrays that one update sent from the host, on average.
    """

    losses: list[float]
    metrics: dict[str, Any]
    waits: list[tuple[str, str]]
    copies: dict[str, float]


def on_both(overrides: Sequence[str]) -> tuple[Seen, Seen]:
    """On the CPU, and on the device."""
    config = composed.run_config(*composed.QUIET, *overrides)
    return _train(config, torch.device("cpu")), _train(config, pretended.device())


def on_device(overrides: Sequence[str]) -> Seen:
    return _train(composed.run_config(*composed.QUIET, *overrides), pretended.device())


def of_a_layer_that_waits(overrides: Sequence[str]) -> Seen:
    """With a layer that looks at a number, as one may do without thinking."""
    right = Identity.forward

    def forward(layer: Identity, x: Ragged, state: State) -> tuple[Ragged, State]:
        assert x.values.sum().item() != 0.1
        return right(layer, x, state)

    Identity.forward = forward  # type: ignore[method-assign]
    try:
        return on_device(overrides)
    finally:
        Identity.forward = right  # type: ignore[method-assign]


def _train(config: RunConfig, device: torch.device) -> Seen:
    """As `hydromel` does it, but for where."""
    preparation.choose_device = lambda *options: device
    watch = nullcontext() if device.type == "cpu" else pretended.Device()
    with tempfile.TemporaryDirectory() as folder, watch as seen, RunFolder.open(Path(folder) / "run") as run:
        t = prepare(config, Components.of(config), run, 0.0).training
        if seen is None:
            return Seen(_losses(t), _metrics(t), [], {})
        seen.waits.clear()
        seen.copies.clear()
        losses = _losses(t)
        copies = {place: count / UPDATES for place, count in seen.copies.items()}
        metrics = _metrics(t)
    return Seen(losses, metrics, list(seen.waits), copies)


def _losses(t: Training) -> list[float]:
    updates = t.batching.updates(t.train.lengths, t.seed, 0)
    return loop.train_segment(t, updates[:UPDATES])


def _metrics(t: Training) -> dict[str, Any]:
    with averaged(t.optimizer):
        return loop.evaluate_valid(t)[1]


def whole_runs(overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """`metrics` of the CPU's result.json and of the device's, and the places at which the latter waited."""
    results, waits = [], []
    for device in (torch.device("cpu"), pretended.device()):
        preparation.choose_device = lambda *options, device=device: device
        watch = nullcontext() if device.type == "cpu" else pretended.Device()
        with tempfile.TemporaryDirectory() as folder, watch as seen:
            results.append(composed.run(Path(folder) / "run", *overrides)["metrics"])
            waits = [] if seen is None else seen.waits
    return results[0], results[1], {place for _, place in waits}


PIECES: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "truth": lambda x: bool((x > 0).any()),
    "to a list": lambda x: x.tolist(),
    "to the host": lambda x: x.cpu(),
    "to the host, at once": lambda x: x.to("cpu", non_blocking=True),
    "into the host": lambda x: torch.zeros(3).copy_(x),
    "places": lambda x: torch.nonzero(x),
    "by a mask": lambda x: x[x > 0],
    "to a mask": lambda x: x.index_put_((x > 0,), torch.zeros((), device=x.device)),
    "by places of the host": lambda x: x[torch.tensor([0, 2])],
    "equal": lambda x: torch.equal(x, x),
    "sent": lambda x: torch.zeros(3).to(x.device),
    "a number sent": lambda x: torch.ones(()).to(x.device),
    "filled from the host": lambda x: x.copy_(torch.zeros(3)),
    "repeated": lambda x: torch.repeat_interleave(x, torch.ones_like(x, dtype=torch.int64)),
    "free": lambda x: (x.masked_fill(x > 0, 1.0) * 2 + torch.ones(())).softmax(0).sum().div_(3),
    "sent at once": lambda x: torch.zeros(3).to(x.device, non_blocking=True) + x,
    "two devices": lambda x: x + torch.ones(3),
    "two in a list": lambda x: torch.cat([x, torch.ones(3)]),
    "array": lambda x: x.numpy(),
}


def noted(piece: str) -> int | str:
    """How often a piece of `PIECES` waits; its error."""
    with pretended.Device() as seen:
        x = torch.tensor([1.0, -2.0, 3.0]).to(pretended.device())
        seen.waits.clear()
        try:
            PIECES[piece](x)
        except (RuntimeError, TypeError) as error:
            return str(error)
    return len(seen.waits)
