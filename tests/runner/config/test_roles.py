"""Parts are checked against their role before data is read: what they lack, and whether they fit the task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.common.errors import HydromelError
from runner.components.model_parts import ModelParts
from runner.components.run_components import Components
from runner.config.compose import compose_config
from runner.config.schema import RunConfig
from runner.model import build_model
from runner.text.vocab import PAD, UNK, Vocab
from tests.helpers.plugin_module import plugin_module
from tests.helpers.target_batches import tagged

VOCABS = {"words": Vocab(("a", "b"), (PAD, UNK)), "target": Vocab(("x", "y"))}
BROKEN = """
from torch import nn

class Empty:
    def __init__(self) -> None: ...

class Callable(Empty):
    per_token, output_size = True, 3
    def __init__(self, *, input_size: int, causal: bool) -> None: ...
    def __call__(self, x, state): ...

class Sizeless(nn.Module):
    per_token = True
    def __init__(self, *, input_size: int, causal: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(input_size, 3)

class Stateless(Sizeless):
    output_size = 3
    def forward(self, x, state):
        return x.map(self.linear)

class Unpacked(Stateless):
    def forward(self, x, state):
        return self.linear(x.values), None

class Failing(Stateless):
    def forward(self, x, state):
        return 1 / 0

class Unaware(nn.Module):
    per_token = True
    def __init__(self, *, input_size: int) -> None:
        super().__init__()
        self.output_size = input_size

class Aware(Unaware):
    causal = True
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with plugin_module(tmp_path, monkeypatch, "broken_plugin", BROKEN) as name:
        yield name


def with_class(own: str, role: str, name: str, *overrides: str) -> RunConfig:
    return compose_config(overrides).changed(plugins=[own], **{role: {"_target_": f"{own}.{name}"}})


@pytest.mark.parametrize(
    ("role", "name", "line"),
    [
        ("encoder", "Callable", "encoder: Callable is not a torch.nn.modules.module.Module"),
        ("embedding", "Empty", "embedding: Empty is not a torch.nn.modules.module.Module"),
        ("metric", "Empty", "metric: Empty lacks compute, start, update, which Metric in runner.interfaces has"),
        ("metric", "Callable", "metric: Callable lacks compute, start, update, which Metric in runner.interfaces has"),
        ("tracker", "Empty", "tracker: Empty lacks check, deliver, describe, target, which Tracker in runner.tracking"),
        ("dataset", "Empty", "dataset: Empty lacks fingerprint, read, which Corpus in runner.interfaces has"),
        ("batching", "Empty", "batching: Empty lacks a method of BatchingStrategy in runner/interfaces.py"),
    ],
)
def test_a_class_that_lacks_what_its_role_has_is_told_before_data_is_read(
    own: str, role: str, name: str, line: str
) -> None:
    with pytest.raises(HydromelError) as caught:
        Components.of(with_class(own, role, name))
    assert str(caught.value).startswith(line)


def model_with(own: str, name: str) -> Any:
    config = with_class(own, "encoder", name, "task=tag", "embedding.size=4")
    return build_model(ModelParts.of(config, [own]), VOCABS)


def test_an_attribute_that_objects_lack_is_told_when_they_are_built(own: str) -> None:
    with pytest.raises(
        HydromelError, match=r"encoder: Sizeless lacks output_size, which Encoder in runner\.interfaces"
    ):
        model_with(own, "Sizeless")


@pytest.mark.parametrize(("name", "got"), [("Stateless", "Ragged"), ("Unpacked", r"\(Tensor, NoneType\)")])
def test_a_wrong_result_of_forward_is_told_with_the_class(own: str, name: str, got: str) -> None:
    model = model_with(own, name)
    with pytest.raises(
        HydromelError, match=rf"^encoder: {name}\.forward returned {got}; Encoder in runner\.interfaces"
    ):
        model(tagged([[0, 1], [1]]), None)


def test_an_exception_of_the_users_own_code_stays_as_it_is(own: str) -> None:
    with pytest.raises(ZeroDivisionError):
        model_with(own, "Failing")(tagged([[0, 1], [1]]), None)


def test_an_encoder_that_does_not_take_causal_is_refused_where_it_matters(own: str) -> None:
    with pytest.raises(HydromelError, match=r"^encoder: the constructor of Unaware lacks causal, which task=lm sets"):
        Components.of(with_class(own, "encoder", "Unaware", "task=lm"))
    Components.of(with_class(own, "encoder", "Unaware", "task=tag"))
    Components.of(with_class(own, "encoder", "Aware", "task=lm"))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["task=tag", "batching=stream"], "task.unit=stream and batching=stream go together; got task=tag"),
        (["task=lm", "task.unit=stream"], "task.unit=stream and batching=stream go together; got task=lm"),
        (["task=lm", "task.unit=stream", "batching=stream", "max_length=9"], "max_length=9 cuts rows"),
        (["task=lm", "encoder=blstm"], "encoder.bidirectional=true would see the next token"),
        (["task=lm", "encoder=bow"], "encoder=bow gives one vector per row"),
        (["task=tag", "encoder=transformer", "encoder.memory=9"], "encoder: memory=9 needs a causal encoder"),
        (["encoder=transformer", "encoder.size=9", "encoder.heads=2"], "encoder: size=9 must be a multiple of heads=2"),
    ],
)
def test_options_that_do_not_fit_the_task_are_refused_before_data_is_read(overrides: list[str], line: str) -> None:
    before = torch.get_rng_state()
    with pytest.raises(HydromelError) as caught:
        Components.of(compose_config(overrides))
    assert str(caught.value).startswith(line)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_plan_without_options_says_so(own: str) -> None:
    config = compose_config(["batching=padmask"])
    plan = {"_target_": f"{own}.Empty", "batch_size": 3}
    with pytest.raises(HydromelError, match=r"^batching\.plan\.batch_size: unknown option\. Allowed: none$"):
        Components.of(config.changed(plugins=[own], batching={**config.batching, "plan": plan}))


def test_yaml_that_cannot_be_parsed_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/bad.yaml").write_text("_target_ broken\n x: [\n", encoding="utf-8")
    with pytest.raises(HydromelError, match=r'^mapping values are not allowed here in .*bad\.yaml", line 2'):
        compose_config(["encoder=bad"], tmp_path)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "train.patience.x=4",
            "train.patience.x=4: train.patience is null; if it takes a mapping, give all of it, as in ",
        ),
        ("metrik=row_accuracy", "metrik: unknown option; did you mean 'metric'? Allowed: task, "),
        ("+metrik=row_accuracy", "metrik: unknown option; did you mean 'metric'? Allowed: task, "),
        ("experimnt=svm", "experimnt: unknown option; did you mean 'experiment'? Allowed: task, "),
        ("+choices=3", "choices: unknown option"),
        ("+choices={task: lm}", "choices: unknown option"),
    ],
)
def test_unknown_options_at_the_top_level(override: str, line: str) -> None:
    with pytest.raises(HydromelError) as caught:
        compose_config([override])
    assert str(caught.value).startswith(line)
    assert "choices" not in str(caught.value).partition("Allowed")[2]
