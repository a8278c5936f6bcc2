"""NaN and infinities stop a run and name the update; no checkpoint, metric or prediction comes from them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.experiment import run as run_module
from runner.inference.predictions import run_split
from runner.training import loop, optimizers
from runner.training.checkpoint import checkpoint_path, load_checkpoint
from runner.training.optimizers import clip_gradients, parameters_by_rate
from runner.training.state import Training
from tests.helpers.composed import run, tag_files
from tests.helpers.interrupted import records

OPTIONS = [
    *("encoder=none", "embedding.size=4", "device=cpu", "batching=padmask", "batching.batch_size=8"),
    *("train.epochs=2", "train.checkpoint_every=3", "baselines=false", "sweep.id=null"),
]
LAST = 16  # updates of two epochs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tag_files(tmp_path_factory.mktemp("data"), rows=60)


def failure(folder: Path, data: list[str]) -> str:
    """The message of a run, which must leave its checkpoints finite and its status failed, without a result."""
    with pytest.raises(HydromelError) as caught:
        run(folder, *data, *OPTIONS)
    assert json.loads((folder / run_schema.RUN).read_text())["status"] == run_schema.FAILED
    assert not (folder / run_schema.RESULT).exists()
    return str(caught.value)


def updates_of(t: Training, name: str) -> int:
    """The number of updates before a checkpoint, which is read as a whole, so that it must be finite."""
    updates: int = load_checkpoint(checkpoint_path(t.run.path, name), t.model)["progress"]["updates"]
    return updates


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """The training of the run that is made next."""
    trainings, fit = list[Training](), run_module.fit

    def noted(t: Training) -> None:
        trainings.append(t)
        fit(t)

    monkeypatch.setattr(run_module, "fit", noted)
    return trainings


def after_update(patch: pytest.MonkeyPatch, update: int, spoil: Callable[[Training], None]) -> None:
    """Spoil something after the gradients of an update, counted from 1, were computed."""
    add_gradients = loop.add_gradients

    def spoiled(t: Training, *rest: Any) -> Any:
        result = add_gradients(t, *rest)
        if t.progress.updates + 1 == update:
            spoil(t)
        return result

    patch.setattr(loop, "add_gradients", spoiled)
    patch.setattr(loop, "check_memory", lambda *arguments: None)


@pytest.mark.parametrize(
    ("update", "kept", "value"), [(1, None, math.nan), (8, 6, math.nan), (8, 6, math.inf), (LAST, 15, math.inf)]
)
@pytest.mark.parametrize("waits", [True, False])  # False: as on a GPU, where only the end of a segment waits
def test_a_gradient(
    update: int,
    kept: int | None,
    value: float,
    waits: bool,
    data: list[str],
    training: list[Training],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil(t: Training) -> None:
        gradient = next(t.model.head.parameters()).grad
        assert gradient is not None
        gradient.view(-1)[2] = value

    after_update(monkeypatch, update, spoil)
    if not waits:
        check, calls = loop.check_finite, []

        def at_the_end(t: Training, first: int, losses: list[float], *rest: Any) -> None:
            calls.append(first)
            if calls.count(first) == 2 or len(losses) > 1:
                check(t, first, losses, *rest)

        monkeypatch.setattr(loop, "check_finite", at_the_end)
    line = failure(tmp_path / "run", data)
    assert f"the norm of the gradient is {value} at update {update} (epoch {1 + (update > 8)}; rows" in line
    last = checkpoint_path(tmp_path / "run", "last")
    assert last.exists() == (kept is not None)
    if kept is not None:
        assert updates_of(training[0], "last") == kept


@pytest.mark.parametrize("update", [3, 8, LAST])
def test_a_parameter(
    update: int, data: list[str], training: list[Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = optimizers.Adam.step

    def spoiled(self: optim.Adam, closure: None = None) -> None:
        step(self, closure)
        if training[0].progress.updates + 1 == update:
            with torch.no_grad():
                training[0].model.head.get_parameter("linear.bias")[1] = math.inf

    monkeypatch.setattr(optimizers.Adam, "step", spoiled)
    line = failure(tmp_path / "run", data)
    assert "head.linear.bias has NaN or infinities after update" in line
    if update == LAST:
        assert f"after update {LAST};" in line
        assert updates_of(training[0], "last") == 15
        assert updates_of(training[0], "best") == 8


def test_scores(data: list[str], training: list[Training], tmp_path: Path) -> None:
    run(tmp_path / "run", *data, *OPTIONS, "train.epochs=1")
    (t,) = training
    with torch.no_grad():
        t.model.head.get_parameter("linear.bias")[1] = math.nan
    for attempt in (lambda: loop.evaluate_valid(t), lambda: run_split(t, t.valid)):
        with pytest.raises(HydromelError, match="the scores of the model are NaN"):
            attempt()


def test_the_norm_is_recorded(data: list[str], tmp_path: Path) -> None:
    run(tmp_path / "run", *data, *OPTIONS, "train.log_every=1", "train.checkpoint_every=null")
    norms = {step: value for step, _, name, value in records(tmp_path / "run") if name == "train/gradient_norm"}
    assert list(norms) == list(range(1, LAST + 1))
    assert all(value is not None and value > 0 for value in norms.values())
    run(tmp_path / "other", *data, *OPTIONS, "train.log_every=4", "train.checkpoint_every=null")
    means = {step: value for step, _, name, value in records(tmp_path / "other") if name == "train/gradient_norm"}
    assert means[8] == pytest.approx(sum(norms[step] for step in (5, 6, 7, 8)) / 4)


@pytest.mark.parametrize("most", [None, 0.5, 1e9])
def test_clipping_agrees_with_the_obvious(most: float | None) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[1].bias.requires_grad_(False)
    model(torch.randn(5, 3)).square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert clip_gradients(optim.SGD(parameters_by_rate(model)), most).item() == pytest.approx(norm.item())
    factor = 1.0 if most is None else min(1.0, most / norm.item())
    for gradient, parameter in zip(gradients, (p for p in model.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(parameter.grad, factor * gradient, rtol=1e-5, atol=0)


def test_the_chosen_metric(tmp_path: Path) -> None:
    # The losses stay finite; their exponential does not.
    (tmp_path / "text.txt").write_text("the cat sat on the mat .\na dog sat .\n" * 20, encoding="utf-8")
    lm = ["task=lm", "dataset=text", f"dataset.train={tmp_path / 'text.txt'}", "encoder=lstm", "encoder.hidden=4"]
    with pytest.raises(HydromelError, match=r"perplexity on valid is inf after update \d+; lower optimizer.lr"):
        run(tmp_path / "run", *lm, *OPTIONS[1:], "optimizer=nt_asgd", "optimizer.lr=1e6")
    assert json.loads((tmp_path / "run" / run_schema.RUN).read_text())["status"] == run_schema.FAILED
