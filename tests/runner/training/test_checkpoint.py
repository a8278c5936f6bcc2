"""Checkpoints: everything comes back bit by bit; a damaged file or one of another model is told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.training.checkpoint import load_checkpoint, save_checkpoint


class Tied(nn.Module):
    """An output layer that shares the embedding's weights, and a buffer."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, size)
        self.output = nn.Linear(size, 5)
        self.output.weight = self.embedding.weight
        self.register_buffer("steps", torch.randint(9, (2,)))


def state_of(model: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "carried": (torch.ones(2), (), [torch.zeros(0, 3), None]),
        "numbers": {"best": 0.1 + 0.2, "epoch": 3, "nothing": None, 7: "whole numbers stay keys", "": float("inf")},
        "rng": torch.get_rng_state(),
    }


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and bool(left == right)


def test_all_comes_back(tmp_path: Path) -> None:
    model, state = Tied(), None
    state = state_of(model)
    save_checkpoint(tmp_path / "a" / "last.safetensors", model, state)
    other = Tied()
    found = load_checkpoint(tmp_path / "a" / "last.safetensors", other)
    assert same(found, state)
    assert all(same(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    assert other.output.weight is other.embedding.weight
    with safe_open(tmp_path / "a" / "last.safetensors", framework="pt") as file:
        stored = [name for name in file.keys() if name.startswith("model.")]  # noqa: SIM118 (no mapping)
    assert sorted(stored) == ["model.embedding.weight", "model.output.bias", "model.steps"]


def test_the_saved_state_is_a_copy(tmp_path: Path) -> None:
    model = Tied()
    before = model.output.bias.detach().clone()
    save_checkpoint(tmp_path / "last.safetensors", model, {"transposed": torch.arange(6.0).view(2, 3).T})
    with torch.no_grad():
        model.output.bias.add_(1)
    assert load_checkpoint(tmp_path / "last.safetensors", model)["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert torch.equal(model.output.bias, before)


def test_another_model_is_refused_before_it_is_touched(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.safetensors", Tied(3), {})
    other = Tied(4)
    before = other.output.bias.detach().clone()
    with pytest.raises(
        HydromelError, match=r"does not fit.*embedding.weight is \(5, 3\) there, the model has \(5, 4\)"
    ):
        load_checkpoint(tmp_path / "last.safetensors", other)
    with pytest.raises(HydromelError, match=r"nothing"):
        load_checkpoint(tmp_path / "last.safetensors", nn.Linear(3, 5))
    assert torch.equal(other.output.bias, before)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign"])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, Tied(), state_of(Tied()))
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[:-40], "foreign": b"PK" + content}[damage])
    with pytest.raises(HydromelError, match=r"last\.safetensors") as caught:
        load_checkpoint(path, Tied())
    assert "\n" not in str(caught.value)
