"""Carried state: nested containers are mapped completely, saved and loaded, and do not grow without bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.encoders.carried_state import detach_state, move_state, select_state
from runner.interfaces import START
from runner.training.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.composed import parts, run_config

STATE: Any = (np.array([3, 1]), [torch.arange(4.0).view(2, 2).requires_grad_(), (torch.ones(2, 0), None)])


def test_the_first_dimension_of_all_tensors_in_a_state_is_the_row() -> None:
    for function in (detach_state, lambda state: move_state(state, torch.device("cpu"))):
        seen, (first, (second, nothing)) = function(STATE)
        assert seen.tolist() == [3, 1]
        assert torch.equal(first, STATE[1][0])
        assert second.shape == (2, 0)
        assert nothing is None
    assert not detach_state(STATE)[1][0].requires_grad
    seen, (first, (second, _)) = select_state(STATE, np.array([1, 0, 1]))
    assert seen.tolist() == [1, 3, 1]
    assert first.tolist() == [[2, 3], [0, 1], [2, 3]]
    assert second.shape == (3, 0)
    assert detach_state(START) is START or detach_state(START) == START
    with pytest.raises(TypeError, match="got dict"):
        detach_state({"hidden": torch.ones(1)})


def test_a_checkpoint_holds_arrays_of_the_host_too(tmp_path: Path) -> None:
    path, model = tmp_path / "one.safetensors", nn.Linear(1, 1)
    save_checkpoint(path, model, {"carried": detach_state(STATE)})
    seen, (first, (second, nothing)) = load_checkpoint(path, model)["carried"]
    assert isinstance(seen, np.ndarray)
    assert seen.dtype == np.int64
    assert seen.tolist() == [3, 1]
    assert torch.equal(first, STATE[1][0])
    assert second.shape == (2, 0)
    assert nothing is None


def test_a_stream_requires_a_finite_memory() -> None:
    stream = ["task=lm", "task.unit=stream", "batching=stream", "encoder=transformer"]
    with pytest.raises(HydromelError, match=r"encoder: memory=null: the state would grow .* use memory=N tokens"):
        parts(run_config(*stream))
    parts(run_config("task=lm", "encoder=transformer"))
