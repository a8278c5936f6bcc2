"""Building objects from configs: only what is allowed, only what the constructor knows, nothing swallowed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from runner.common.errors import HydromelError
from runner.common.types import Fraction, PositiveInt
from runner.config.instantiate import alternatives, build, check_options
from runner.text.vocab import PAD, UNK, Vocab
from runner.training.schedules import Step, WarmupLinear

LINEAR = {"_target_": "runner.training.schedules.WarmupLinear", "warmup": 2}


def test_options_and_what_only_the_program_knows() -> None:
    built = build(LINEAR, "schedule", {"total_updates": 10, "updates_per_epoch": 5})
    assert isinstance(built, WarmupLinear)
    assert (built.total, built.warmup) == (10, 2)


@pytest.mark.parametrize(
    "target",
    ["os.system", "torch.load", "builtins.eval", "runnerx.evil", "runner", "subprocess.Popen", "pickle.loads"],
)
def test_targets_outside_are_refused(target: str) -> None:
    with pytest.raises(HydromelError, match=r"encoder\._target_=.*not allowed"):
        build({"_target_": target}, "encoder", {})


@pytest.mark.parametrize(
    "target",
    [
        "runner.cli.train.Path",
        "runner.cli.train.subprocess.Popen",
        "runner.experiment.run.cast",
        "runner.cli.sync.json",
    ],
)
def test_what_an_allowed_module_imported_is_not_its_own(target: str) -> None:
    with pytest.raises(HydromelError, match="_target_"):
        build({"_target_": target}, "encoder", {})


@pytest.mark.parametrize(
    ("node", "line"),
    [
        ({"warmup": 2}, "schedule has no _target_"),
        (LINEAR | {"warmap": 2}, "schedule.warmap: unknown option; did you mean 'warmup'?"),
        (LINEAR | {"warmup": 1.5}, "schedule.warmup=1.5: Input should be a valid integer"),
        (LINEAR | {"warmup": True}, "schedule.warmup=True"),
        (LINEAR | {"warmup": "2"}, "schedule.warmup='2'"),
        (LINEAR | {"warmup": -1}, "schedule.warmup=-1: Input should be greater than or equal to 0"),
        (LINEAR | {"warmup": None}, "schedule.warmup=None"),
        (LINEAR | {"warmup": "???"}, "schedule.warmup is missing; give schedule.warmup=VALUE"),
        ({"_target_": LINEAR["_target_"]}, "schedule.warmup is missing"),
        (
            {"_target_": "runner.training.schedules.WarmupLiner"},
            "did you mean 'runner.training.schedules.WarmupLinear'",
        ),
        ({"_target_": "runner.schedul.WarmupLinear"}, "did you mean 'runner.training.schedules.WarmupLinear'"),
    ],
)
def test_one_line_says_what_is_wrong(node: dict[str, Any], line: str) -> None:
    with pytest.raises(HydromelError) as caught:
        build(node, "schedule", {"total_updates": 10})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_that_the_constructor_refuses_is_told_with_its_key() -> None:
    runtime = {"params": nn.Linear(1, 1).parameters()}
    node = {"lr": 0.1, "weight_decay": 0, "fused": False}
    sgd = {"_target_": "runner.training.optimizers.sgd", "momentum": 0.0, "nesterov": True, **node}
    with pytest.raises(HydromelError, match=r"^optimizer: Nesterov momentum requires a momentum"):
        build(sgd, "optimizer", runtime)
    adam = {"_target_": "runner.training.optimizers.adam", "eps": 1e-8, **node}
    for betas, place in (([0.9], ""), ([0.9, 2.0], r"\[1\]")):
        with pytest.raises(HydromelError, match=f"optimizer.betas{place}="):
            build(adam | {"betas": betas}, "optimizer", runtime)


def test_nodes_within_nodes_are_built_first_and_named_in_full() -> None:
    word = {
        "_target_": "runner.embeddings.word.WordEmbedding",
        "feature": "words",
        "size": 4,
        "unk_rate": 0.0,
        "dropout": 0.0,
        "init_range": None,
        "type_dropout": 0.0,
    }
    parts = {"words": word, "again": word | {"size": 3}}
    concat = {"_target_": "runner.embeddings.concat.JoinedEmbedding", "parts": parts, "join": "concat", "dropout": 0.0}
    runtime = {"vocabs": {"words": Vocab((), (PAD, UNK))}}
    assert build(concat, "embedding", runtime).output_size == 7
    with pytest.raises(HydromelError, match=r"^embedding\.parts\.again\.size=0"):
        build(concat | {"parts": parts | {"again": word | {"size": 0}}}, "embedding", runtime)


def test_plugins_are_modules_that_the_user_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "class Holder:\n    def __init__(self, *, parts: list, size: int) -> None:\n        self.parts = parts\n"
    (tmp_path / "my_plugin.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "my_plugin.Holder", "size": 3, "parts": [LINEAR, {"step": LINEAR}, 5]}
    with pytest.raises(HydromelError, match="plugins"):
        build(node, "schedule", {"total_updates": 10})
    try:
        held = build(node, "schedule", {"total_updates": 10}, plugins=["my_plugin"])
        assert isinstance(held.parts[0], WarmupLinear)
        assert isinstance(held.parts[1]["step"], WarmupLinear)
        assert held.parts[2] == 5
        wrong = node | {"parts": [LINEAR, {"step": LINEAR | {"warmup": -1}}]}
        with pytest.raises(HydromelError, match=r"schedule\.parts\[1\]\.step\.warmup=-1"):
            build(wrong, "schedule", {"total_updates": 10}, plugins=["my_plugin"])
    finally:
        sys.modules.pop("my_plugin", None)


def test_options_of_functions() -> None:
    def function(*, size: PositiveInt, dropout: Fraction, names: list[str] | None) -> None: ...

    check_options(function, {"size": 1, "dropout": 0, "names": None}, "")
    check_options(function, {"size": 1, "dropout": 0.5, "names": ["a"]}, "")
    for key, value in {"size": 0, "dropout": 1.0, "names": [1]}.items():
        with pytest.raises(HydromelError, match=rf"^{key}(\[0\])?="):
            check_options(function, {"size": 1, "dropout": 0.5, "names": None} | {key: value}, "")


def test_whole_numbers_pass_for_fractions() -> None:
    node = {"_target_": "runner.training.schedules.Step", "every_epochs": 1, "gamma": 0, "warmup": 0}
    assert isinstance(build(node, "schedule", {"updates_per_epoch": 3, "total_updates": 9}), Step)


def test_alternatives_are_the_other_values_of_options_with_few() -> None:
    node = {"_target_": "runner.encoders.rnn.Rnn", "cell": "gru", "hidden": 4, "bidirectional": None, "dropout": 0.0}
    assert alternatives(node, "encoder") == {"cell": ("rnn", "lstm"), "bidirectional": (False, True)}
