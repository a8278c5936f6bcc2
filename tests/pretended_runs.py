"""What a training says and waits for on the device of `pretended`, for tests; in a process that has it for itself."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import composed
import pretended
import torch

from runner import experiment, train
from runner.averaging import averaged
from runner.experiment import prepare, start_folder
from runner.tracker import NoTracker
from runner.training import Training

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


def on_cpu(overrides: Sequence[str]) -> Seen:
    return _train(overrides, torch.device("cpu"))


def on_device(overrides: Sequence[str]) -> Seen:
    return _train(overrides, pretended.device())


def _train(overrides: Sequence[str], device: torch.device) -> Seen:
    """As `hydromel OVERRIDES` does it, but for where."""
    experiment.choose_device = lambda config: device
    config = composed.config(*composed.QUIET, *overrides)
    watch = nullcontext() if device.type == "cpu" else pretended.Device()
    with tempfile.TemporaryDirectory() as folder, watch as seen, start_folder(config, Path(folder) / "run") as run:
        t, _, _ = prepare(config, run, 0.0, NoTracker(), lambda line: None)
        if seen is None:
            return Seen(_losses(t), _metrics(t), [], {})
        seen.waits.clear()
        seen.copies.clear()
        losses = _losses(t)
        copies = {place: count / UPDATES for place, count in seen.copies.items()}
        metrics = _metrics(t)
    return Seen(losses, metrics, list(seen.waits), copies)


def _losses(t: Training) -> list[float]:
    updates = t.batching.updates(t.train.rows.host_lengths, t.seed, 0)
    return train.train_segment(t, updates[:UPDATES])


def _metrics(t: Training) -> dict[str, Any]:
    with averaged(t.optimizer):
        return train._evaluate(t)[1]


def whole_run(overrides: Sequence[str]) -> tuple[dict[str, Any], Counter[tuple[str, str]]]:
    """result.json, and how often it waited where."""
    device = pretended.device()
    experiment.choose_device = lambda config: device
    with tempfile.TemporaryDirectory() as folder, pretended.Device() as seen:
        return composed.run(Path(folder) / "run", *overrides), Counter(seen.waits)
