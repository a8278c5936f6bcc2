"""Shards: what each rank keeps of a model, and what cannot be divided."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from runner.common.errors import HydromelError
from runner.components.run_components import Components
from runner.distributed.ranks import ALONE, Ranks
from runner.distributed.shards import Shards
from runner.experiment.preparation import prepare
from runner.tracking.run_folder import OthersFolder
from runner.training.loop import train_segment
from runner.training.optimizers import AdamW, Sgd
from runner.training.setup import build_optimizer
from runner.training.state import Training
from tests.helpers.composed import QUIET, run_config, tag_files
from tests.helpers.ranks import in_ranks

OPTIONS = (
    *("encoder=transformer", "encoder.size=48", "encoder.heads=2", "encoder.layers=3", "embedding.size=48"),
    *("batching=packed", "batching.batch_size=8", "device=cpu", "shard=full"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tag_files(tmp_path_factory.mktemp("data"), rows=40)


def training(folder: Path, ranks: Ranks, data: list[str]) -> Training:
    config = run_config(*QUIET, *data, *OPTIONS, f"ranks={ranks.world}", f"runs_dir={folder.parent}")
    with OthersFolder.open(folder) as others:
        return prepare(config, Components.of(config), others, 0.0, ranks).training


def memory(tensors: object) -> int:
    assert isinstance(tensors, list)
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_each_rank_keeps_its_part(data: list[str], tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        t = training(tmp_path / "run", ranks, data)
        assert t.shards is not None
        train_segment(t, t.epoch_updates()[:2])
        numbers = sum(parameter.numel() for parameter in t.model.parameters())
        parts = [part for part in t.model.parameters() if isinstance(part, DTensor)]
        kept = memory([part.to_local() for part in parts])
        moments = [value for state in t.optimizer.state.values() for value in state.values() if value.dim()]
        assert numbers * 4 / 3 <= kept < 1.05 * numbers * 4 / 3  # dimensions that 3 does not divide are padded
        assert sum(map(torch.numel, moments)) == pytest.approx(2 * numbers / 3, rel=0.05)  # Adam's
        assert memory([*t.shards.whole.parameters()]) == 0
        assert all(parameter.grad is None for parameter in (*t.model.parameters(), *t.shards.own.values()))
        with t.whole() as whole:
            assert memory([*whole.model.parameters()]) >= numbers * 4

    assert in_ranks(3, work, tmp_path / "said") == [0, 0, 0], (tmp_path / "said" / "0.log").read_text()


def test_layers_are_gathered_one_at_a_time(data: list[str], tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        t = training(tmp_path / "run", ranks, data)
        layers = [
            module for name, module in t.model.encoder.named_modules() if name in ("layers.0", "layers.1", "layers.2")
        ]
        seen = []

        def look(module: nn.Module, *arguments: object) -> None:
            seen.append([not isinstance(next(layer.parameters()), DTensor) for layer in layers])

        for layer in layers:
            layer.narrow.register_forward_hook(look)
        train_segment(t, t.epoch_updates()[:1])
        assert seen == [[True, False, False], [False, True, False], [False, False, True]]

    assert in_ranks(2, work, tmp_path / "said") == [0, 0], (tmp_path / "said" / "0.log").read_text()


class Branches(nn.Module):
    """Layers of which a pass uses some."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(5, 1, bias=False) for _ in range(3))

    def forward(self, values: Tensor, used: list[int]) -> Tensor:
        return torch.stack([self.parts[place](values).sum() for place in used]).sum()


def test_gradients_that_some_ranks_lack(tmp_path: Path) -> None:
    """A parameter that no rank has used has no gradient; one that some have used has the sum over these."""

    def work(ranks: Ranks) -> None:
        torch.manual_seed(0)
        shards = Shards(Branches(), [], ranks)

        def compute() -> tuple[Tensor, int]:
            loss = shards.model(torch.full((1, 5), 1.0 + ranks.rank), [0, 1] if ranks.is_first else [0])
            loss.backward()
            return loss.detach(), 2

        shards.mean_gradients(compute)
        everywhere, first, never = (own.grad for own in shards.own.values())
        assert never is None
        assert (everywhere == (1 + 2) / 4).all()
        assert (first == 1 / 4).all()

    assert in_ranks(2, work, tmp_path) == [0, 0], (tmp_path / "0.log").read_text()


def single_number() -> nn.Module:
    model = nn.Linear(2, 2)
    model.scale = nn.Parameter(torch.ones(()))
    return model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(nn.Embedding(5, 2, sparse=True)), "the gradient of 0 is sparse"),
        (single_number(), "scale is a single number without a dimension"),
    ],
)
def test_what_cannot_be_divided(model: nn.Module, expected: str) -> None:
    with pytest.raises(HydromelError, match=f"^shard=full: {expected}"):
        Shards(model, [], ALONE)


def test_an_optimiser_that_needs_whole_parameters() -> None:
    model = nn.Linear(2, 2)
    own = {parameter: nn.Parameter(parameter.detach()) for parameter in model.parameters()}
    for kind in (Sgd, AdamW):
        assert build_optimizer(partial(kind, lr=0.1), model, own=own).param_groups[0]["params"] == [*own.values()]
    with pytest.raises(HydromelError, match=r"^shard=full: Adafactor may need whole parameters"):
        build_optimizer(partial(torch.optim.Adafactor, lr=0.1), model, own=own)


def test_an_earlier_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(FSDPModule, "set_reduce_scatter_unused_params")
    with pytest.raises(HydromelError, match=r"shard=full needs torch 2\.13 or later"):
        Shards(nn.Linear(2, 2), [], ALONE)


def test_one_rank_has_the_whole_model(data: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert training(tmp_path / "run", ALONE, data).shards is None
    assert "shard=full: one rank has the whole model" in caplog.text
