"""States of a module: weights that are not zero; and mode, dropout, seed and kept state, restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Literal

import torch
from torch import nn

from runner.layers.dropout import Dropout, WeightDrop

Mode = Literal["eval", "train"]
SPREAD = 0.1  # standard deviation of random weights


def randomise_zero_weights(model: nn.Module, seed: int) -> None:
    """Draw random values for parameters that are all zero, which would hide any leak; padding vectors stay zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(SPREAD * torch.randn(parameter.shape, generator=generator))
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0


@contextmanager
def in_mode(module: nn.Module, mode: Mode) -> Iterator[None]:
    """Set train or eval mode, without dropout, and restore each submodule's mode afterwards."""
    before = {submodule: submodule.training for submodule in module.modules()}
    module.train(mode == "train")
    try:
        with without_dropout(module):
            yield
    finally:
        for submodule, training in before.items():
            submodule.training = training


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Undo on exit every change that a run makes to the module (running statistics, hidden states)."""
    # Attributes (the registration of buffers is one) and the content of buffers can change independently: keep both.
    # A module may change its plain lists, dicts and sets in place.
    attributes = {
        part: {name: copy(value) if type(value) in (list, dict, set) else value for name, value in vars(part).items()}
        for part in module.modules()
    }
    values = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        for submodule, old_attributes in attributes.items():
            for name in set(vars(submodule)) - set(old_attributes):
                del vars(submodule)[name]
            vars(submodule).update(old_attributes)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(values[name])


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Set all dropout probabilities to 0, including those of torch's own layers, and restore them afterwards."""
    # Layers such as nn.LSTM and nn.MultiheadAttention keep their rate in attributes of various names.
    rates = [
        (submodule, name, 0.0)
        for submodule in module.modules()
        for name, value in vars(submodule).items()
        if isinstance(value, float)
        and ("drop" in name.lower() or (name == "p" and "Dropout" in type(submodule).__name__))
    ]
    with _with_attributes(rates):
        yield


@contextmanager
def with_dropout(module: nn.Module, rate: float) -> Iterator[None]:
    """Set all dropout layers of this project to one rate above 0, and restore their rates afterwards.

    Weight drop is set to 0, since all rows share its mask by design.
    """
    rates = {Dropout: ("p", rate), WeightDrop: ("drop", 0.0)}
    with _with_attributes([(part, *rates[type(part)]) for part in module.modules() if type(part) in rates]):
        yield


@contextmanager
def _with_attributes(attributes: Sequence[tuple[nn.Module, str, float]]) -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module, name, _ in attributes]
    for module, name, value in attributes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random generators, and restore their states afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
