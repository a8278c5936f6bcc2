"""Averaged SGD: against plain SGD and its own iterates, evaluated by the mean, and taken up where it was left."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from runner.components.run_components import optimizer_factory
from runner.tracking.run_folder import RunFolder
from runner.training import checkpoint
from runner.training.checkpoint import save_checkpoint
from runner.training.optimizers import AveragedSgd, averaged, observe
from runner.training.setup import build_optimizer
from tests.helpers.composed import run, run_config


def layer() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, 3).double()


def trained(module: nn.Linear, optimizer: torch.optim.Optimizer, updates: int, seed: int = 3) -> list[torch.Tensor]:
    """The weight after each update."""
    torch.manual_seed(seed)
    seen = []
    for _ in range(updates):
        module(torch.randn(5, 4, dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(module.weight.detach().clone())
    return seen


def built(*overrides: str) -> Callable[[torch.nn.Module], torch.optim.Optimizer]:
    """What builds the configured optimiser over a module's parameters."""
    return partial(build_optimizer, optimizer_factory(run_config(*overrides)))


@pytest.mark.parametrize("start", [0, 1, 4, 9])
def test_the_mean_is_that_of_the_iterates_after_the_start(start: int) -> None:
    module, plain = layer(), layer()
    optimizer = built("optimizer=asgd", "optimizer.lr=0.01", f"optimizer.t0={start}")(module)
    iterates = trained(module, optimizer, 9)
    expected = trained(plain, torch.optim.SGD(plain.parameters(), 0.01), 9)
    torch.testing.assert_close(iterates, expected, msg="training is plain SGD")
    last = module.weight.detach().clone()
    with averaged(optimizer):
        mean = torch.stack(iterates[start:]).mean(dim=0) if start < 9 else last
        torch.testing.assert_close(module.weight.detach(), mean)
        assert start >= 8 or not torch.equal(module.weight, last)
    assert torch.equal(module.weight, last), "training goes on from the last iterate"


def trigger_of_awd_lstm(losses: list[float], nonmono: int) -> int | None:
    """The evaluation at which the authors' main.py turns to ASGD."""
    best_val_loss: list[float] = []
    for epoch, val_loss in enumerate(losses):
        if len(best_val_loss) > nonmono and val_loss > min(best_val_loss[: len(best_val_loss) - nonmono]):
            return epoch
        best_val_loss.append(val_loss)
    return None


@pytest.mark.parametrize("patience", [0, 1, 2, 5])
def test_averaging_is_triggered_by_what_awd_lstm_is(patience: int) -> None:
    rng, triggers = random.Random(1), set()
    nt_asgd = built("optimizer=nt_asgd", f"optimizer.patience={patience}")
    for _ in range(60):
        losses = [10 / (1 + number) + rng.choice([0.0, 0.0, 0.0, 1.0, 3.0]) * rng.random() for number in range(12)]
        optimizer = nt_asgd(layer())
        assert isinstance(optimizer, AveragedSgd)
        actual = None
        for place, loss in enumerate(losses):
            optimizer.updates += 7
            observe(optimizer, -loss)
            if actual is None and optimizer.start is not None:
                actual = place
                assert optimizer.start == optimizer.updates
        assert actual == trigger_of_awd_lstm(losses, patience)
        triggers.add(actual)
    assert len(triggers) > 3


def test_other_optimizers_are_left_alone() -> None:
    module = layer()
    optimizer = torch.optim.Adam(module.parameters())
    observe(optimizer, 1.0)
    before = module.weight.detach().clone()
    with averaged(optimizer):
        assert torch.equal(module.weight, before)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("text")
    rng = random.Random(1)
    for split in ("train", "valid", "test"):
        lines = [" ".join(rng.choice("abcde") for _ in range(rng.randrange(12))) for _ in range(40)]
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")]
    options = ["encoder=lstm", "encoder.hidden=6", "encoder.weight_drop=0.3", "embedding.size=5", "task.unit=stream"]
    options += ["batching=stream", "batching.batch_size=4", "batching.window=5", "train.epochs=5", "baselines=false"]
    return ["task=lm", "dataset=text", f"data_dir={folder}", *files, *options, "train.checkpoint_every=3"]


CHOICES = {
    "asgd": ["optimizer=asgd", "optimizer.t0=6", "optimizer.lr=1.0"],
    "nt_asgd": ["optimizer=nt_asgd", "optimizer.patience=0", "optimizer.lr=4.0"],
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_keeps_the_mean_as_its_best_and_is_taken_up_to_the_bit(
    choice: str, text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*text, *CHOICES[choice]]
    iterates: list[torch.Tensor] = []
    step = AveragedSgd.step

    def watched(self: AveragedSgd, *rest: Any) -> Any:
        done = step(self, *rest)
        iterates.append(self.param_groups[0]["params"][0].detach().clone())
        return done

    starts: list[int | None] = []
    kept: list[tuple[int, int | None, torch.Tensor]] = []

    def watched_save(path: Path, model: nn.Module, state: dict[str, Any]) -> None:
        if path.stem == "last":
            starts.append(state["optimizer"]["averaging"]["start"])
        else:  # after the last one of the same evaluation
            kept.append((len(iterates), starts[-1], next(model.parameters()).detach().clone()))
        save_checkpoint(path, model, state)

    monkeypatch.setattr(AveragedSgd, "step", watched)
    monkeypatch.setattr(checkpoint, "save_checkpoint", watched_save)
    assert run(tmp_path / "whole", *options)["updates"]["dropout"] is True, "weight drop is one"
    for done, start, parameter in kept:
        averaging = start is not None and done > start
        expected = torch.stack(iterates[start:done]).mean(dim=0) if averaging else iterates[done - 1]
        torch.testing.assert_close(parameter, expected)
    whole = tensors(tmp_path / "whole")
    assert torch.equal(whole["model.embedding.table.weight"], iterates[-1]), "last is the last iterate"
    mean = whole["state.optimizer.state.0.mean"]
    assert not torch.equal(mean, iterates[-1])
    assert choice != "asgd" or any(start is not None and done > start for done, start, _ in kept)
    monkeypatch.undo()

    log = RunFolder.log

    def log_until(self: RunFolder, step: int, *rest: Any) -> None:
        if step > len(iterates) - 5:
            raise Killed
        log(self, step, *rest)

    monkeypatch.setattr(RunFolder, "log", log_until)
    with pytest.raises(Killed):
        run(tmp_path / "cut", *options)
    monkeypatch.undo()
    assert any(name.endswith(".mean") for name in tensors(tmp_path / "cut")), "it was cut while it averaged"
    run(tmp_path / "cut", *options)
    again = tensors(tmp_path / "cut")
    assert whole.keys() == again.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "last.safetensors")
