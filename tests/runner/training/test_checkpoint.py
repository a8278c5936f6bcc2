"""Checkpoints: everything comes back bit by bit; a damaged file or one of another model is told in one line."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.experiment import run as run_module
from runner.training.checkpoint import (
    Checkpoint,
    checkpoint_path,
    load_checkpoint,
    resume,
    save_checkpoint,
    write_best,
    write_last,
)
from runner.training.state import Training
from tests.helpers.composed import run, tag_files


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
    actual = load_checkpoint(tmp_path / "a" / "last.safetensors", other)
    assert same(actual, state)
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
        HydromelError, match=r"does not fit.*embedding.weight is \(5, 3\) in the file, \(5, 4\) in the model"
    ):
        load_checkpoint(tmp_path / "last.safetensors", other)
    with pytest.raises(HydromelError, match=r"absent"):
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


def test_one_flipped_bit_is_told(tmp_path: Path) -> None:
    path, model, rng = tmp_path / "last.safetensors", Tied(), random.Random(1)
    save_checkpoint(path, model, state_of(model))
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*rng.sample(range(header), 150), *rng.sample(range(header, len(content)), 350)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(HydromelError, match=r"last\.safetensors") as caught:
            load_checkpoint(path, model)
        assert "\n" not in str(caught.value)
        assert place < header or "damaged, its content does not match its checksum" in str(caught.value)


def test_a_checkpoint_of_an_earlier_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, Tied(), {})
    save_file(load_file(path), path, {"hydromel": '{"__dict__": []}'})
    with pytest.raises(HydromelError, match=r"an earlier version wrote this checkpoint, without a checksum"):
        load_checkpoint(path, Tied())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_that_is_not_finite_does_not_replace_a_checkpoint(value: float, tmp_path: Path) -> None:
    path, model = tmp_path / "best.safetensors", Tied()
    save_checkpoint(path, model, {})
    before = path.read_bytes()
    with torch.no_grad():
        model.output.bias[3] = value
    with pytest.raises(HydromelError, match=r"best\.safetensors: output\.bias has NaN or infinities"):
        save_checkpoint(path, model, {})
    assert path.read_bytes() == before
    with torch.no_grad():
        model.output.bias.fill_(3e38)  # finite, but not its sum
    save_checkpoint(path, model, {})


class Captured(Exception):
    pass


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training that has just begun, with its last checkpoint."""
    folder, trainings = tmp_path_factory.mktemp("captured"), list[Training]()

    def capture(t: Training) -> None:
        write_last(t)
        trainings.append(t)
        raise Captured

    options = [*tag_files(folder, rows=30), "encoder=none", "schedule=plateau", "device=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "fit", capture)
        with pytest.raises(Captured):
            run(folder / "run", *options)
    return trainings[0]


def test_the_best_checkpoint_has_no_state_of_the_optimizer(training: Training) -> None:
    write_best(training)
    best = Checkpoint.read(checkpoint_path(training.run.path, "best"))
    assert {name.partition(".")[0] for name in best.tensors} == {"model"}
    assert best.state.keys() == {"progress"}
    assert best.progress == training.progress


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "no progress": lambda state: state.pop("progress"),
    "no random numbers": lambda state: state.pop("rng"),
    "random numbers": lambda state: state.update(rng=5),
    "few random numbers": lambda state: state.update(rng=torch.zeros(3, dtype=torch.uint8)),
    "an epoch": lambda state: state["progress"].update(epoch="2"),
    "a quality": lambda state: state["progress"].update(best=[1.0]),
    "an unknown field": lambda state: state["progress"].update(time=1),
    "a state that is carried": lambda state: state["progress"].update(carried={"a": 1}),
    "a peak": lambda state: state["progress"].update(peak_batch={"rows": 1}),
    "seconds": lambda state: state["seconds"].update(forward=None),
    "counts": lambda state: state["account"].update(by_length={"a": {}}),
    "tokens": lambda state: state["account"].update(real_tokens=1.5),
    "a schedule": lambda state: state.update(schedule=[]),
    "an empty schedule": lambda state: state.update(schedule={}),
    "an optimiser": lambda state: state.update(optimizer=None),
    "groups": lambda state: state["optimizer"].update(param_groups=[{}]),
    "the options of a group": lambda state: state["optimizer"]["param_groups"].append({"params": [0]}),
    "no origin": lambda state: state.pop("origin"),
    "a fingerprint": lambda state: state["origin"].update(fingerprint=None),
    "a config": lambda state: state["origin"].update(config=[]),
    "parameters": lambda state: state["optimizer"].update(state=[1]),
}


def read_and_resume(training: Training, path: Path) -> None:
    checkpoint = Checkpoint.read(path)
    assert checkpoint.origin == training.origin
    resume(training, checkpoint)


@pytest.mark.parametrize("what", WRONG)
def test_a_state_of_wrong_types_is_one_line(what: str, training: Training, tmp_path: Path) -> None:
    checkpoint = Checkpoint.read(checkpoint_path(training.run.path, "last"))
    assert resume(training, checkpoint).progress == training.progress
    state = copy.deepcopy(checkpoint.state)
    WRONG[what](state)
    save_checkpoint(tmp_path / "last.safetensors", training.model, state)
    with pytest.raises(HydromelError, match=r"last\.safetensors: its state does not fit this run \(.") as caught:
        read_and_resume(training, tmp_path / "last.safetensors")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200 + len(str(training.run.path))


@pytest.mark.parametrize("meta", ["[" * 100_000, "5", '{"a": 1}', '{"__dict__": 5}', '{"__tensor__": []}', "null"])
def test_metadata_of_wrong_types_is_one_line(meta: str, training: Training, tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, training.model, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.training.checkpoint.json.dumps", lambda state: meta)
        save_checkpoint(path, training.model, {})
    with pytest.raises(HydromelError, match=r"last\.safetensors: ") as caught:
        resume(training, Checkpoint.read(path))
    assert "\n" not in str(caught.value)
