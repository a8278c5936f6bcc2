"""A module for the length of a run: mode, dropout, random numbers and what it keeps; afterwards all is as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from runner.layers.dropout import Dropout
from runner.layers.weight_drop import WeightDrop

Mode = Literal["eval", "train"]


@contextmanager
def in_mode(module: nn.Module, mode: Mode) -> Iterator[None]:
    """Train or eval mode, without dropout; afterwards as it was."""
    before = {one: one.training for one in module.modules()}
    module.train(mode == "train")
    try:
        with without_dropout(module):
            yield
    finally:
        for one, training in before.items():
            one.training = training


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """What the module keeps in itself (running statistics, hidden states) is afterwards as it was."""
    modules = list(module.modules())
    attributes = [{name: _copied(value) for name, value in vars(one).items()} for one in modules]
    buffers = [dict(one._buffers) for one in modules]
    values = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        for one, kept, held in zip(modules, attributes, buffers, strict=True):
            for name in set(vars(one)) - set(kept):
                del vars(one)[name]
            vars(one).update(kept)
            one._buffers.clear()
            one._buffers.update(held)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(values[name])


def _copied(value: Any) -> Any:
    """Of a plain list, dict or set, which a module may write into, a copy."""
    return value.copy() if type(value) in (list, dict, set) else value


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """All dropout probabilities at 0, those of torch's own layers too."""
    changed: list[tuple[nn.Module, str, float]] = []
    for one in module.modules():
        for name, value in vars(one).items():
            is_rate = "drop" in name.lower() or (name == "p" and "Dropout" in type(one).__name__)
            if is_rate and isinstance(value, float):
                changed.append((one, name, value))
    for one, name, _ in changed:
        setattr(one, name, 0.0)
    try:
        yield
    finally:
        for one, name, value in changed:
            setattr(one, name, value)


@contextmanager
def with_dropout(module: nn.Module, rate: float) -> Iterator[None]:
    """All dropout layers of ours at one rate above 0, but for weight drop, at 0: rows share it by nature."""
    rates = {Dropout: ("p", rate), WeightDrop: ("drop", 0.0)}
    changed = [(one, *rates[type(one)]) for one in module.modules() if type(one) in rates]
    before = [getattr(one, name) for one, name, _ in changed]
    for one, name, new in changed:
        setattr(one, name, new)
    try:
        yield
    finally:
        for (one, name, _), old in zip(changed, before, strict=True):
            setattr(one, name, old)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed; afterwards all generators are as they were."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
