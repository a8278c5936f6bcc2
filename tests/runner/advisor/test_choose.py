"""`batching=auto`: what it chooses is what runs, exactly as if it had been asked for, and the choice stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from runner.advisor.speed_probe import SpeedProbe
from runner.batching.auto import Auto
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.experiment import run as experiment
from tests.helpers.composed import config, run, run_config, tag_files

MODEL = ["encoder=conv", "encoder.filters=8", "embedding.size=8", "encoder.dropout=0.3", "baselines=false"]
AUTO = ["batching=auto", "batching.probe_seconds=0.2", "batching.batch_size=8"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, Any]]:
    """A run that chose packed, its options but for batching, and its result."""
    folder = tmp_path_factory.mktemp("auto")
    options = [*tag_files(folder), *MODEL, "train.epochs=2"]
    result = run(folder / "runs" / "auto", *options, *AUTO, "batching.among=[packed]")
    return folder / "runs" / "auto", options, result


def test_a_chosen_strategy_runs_bit_for_bit_as_if_it_had_been_asked_for(
    finished: tuple[Path, list[str], dict[str, Any]],
) -> None:
    folder, options, result = finished
    asked = run(folder.parent / "packed", *options, "batching=packed", "batching.batch_size=8")
    assert result["updates"] == asked["updates"]
    assert result["metrics"] == asked["metrics"]
    assert (result["batching"], asked["batching"]) == ("auto", "packed")
    for checkpoint in ("best", "last"):
        others = load_file(folder.parent / "packed" / run_schema.CHECKPOINTS / f"{checkpoint}.safetensors")
        for name, tensor in load_file(folder / run_schema.CHECKPOINTS / f"{checkpoint}.safetensors").items():
            assert torch.equal(tensor, others[name]), name


def test_the_choice_is_fixed_in_the_folder(finished: tuple[Path, list[str], dict[str, Any]]) -> None:
    folder, _, result = finished
    batching = yaml.safe_load((folder / run_schema.RESOLVED).read_text())["batching"]
    assert (batching["name"], batching["layout"], batching["batch_size"]) == ("auto", "packed", 8)
    assert json.loads((folder / run_schema.RUN).read_text())["advice"] == result["advice"]
    (candidate,) = result["advice"]["candidates"]
    assert (candidate["name"], candidate["batch_size"], candidate["layout"]) == ("packed", 8, "packed")
    assert candidate["predicted_real_tokens_per_s"] > 0
    assert candidate["predicted_peak_bytes"] > result["memory"]["before_training_bytes"] / 2


class Killed(Exception):
    pass


def killed(*arguments: object) -> None:
    raise Killed


def test_a_resumed_run_does_not_probe_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*tag_files(tmp_path), *MODEL, *AUTO, "batching.among=[padmask,bucketed]"]
    with monkeypatch.context() as stopped:
        stopped.setattr(experiment, "finish", killed)
        with pytest.raises(Killed):
            run(tmp_path / "run", *options, "train.epochs=1")
    before = json.loads((tmp_path / "run" / run_schema.RUN).read_text())["advice"]
    monkeypatch.setattr(SpeedProbe, "predict", killed)
    assert run(tmp_path / "run", *options, "train.epochs=2")["advice"] == before


def test_batch_sizes_are_candidates_and_memory_limits_the_choice(tmp_path: Path) -> None:
    options = [*tag_files(tmp_path), *MODEL, *AUTO, "batching.among=[packed]", "batching.batch_sizes=[2,16]"]
    advice = run(tmp_path / "run", *options, "train.max_updates=1")["advice"]
    assert [candidate["batch_size"] for candidate in advice["candidates"]] == [2, 16]
    assert (
        advice["batch_size"]
        == max(advice["candidates"], key=lambda one: one["predicted_real_tokens_per_s"])["batch_size"]
    )
    with pytest.raises(HydromelError, match=r"batching\.max_memory_bytes=1000: the least that any .*\(packed, batch_"):
        run(tmp_path / "small", *options, "batching.max_memory_bytes=1000")


def test_candidates_keep_their_options_and_follow_the_batch_size() -> None:
    node = config("batching=auto", "batching.batch_size=5", "batching.candidates.bucketed.plan.buckets=3")["batching"]
    auto = build(node, "batching", {})
    assert isinstance(auto, Auto)
    by_name = dict(auto.strategies())
    assert list(by_name) == ["size1", "bucketed", "padmask", "packed"]
    assert {item.batch_size for item in by_name.values()} == {5}
    assert by_name["bucketed"].plan.buckets == 3


def test_a_name_that_is_no_candidate_is_named() -> None:
    with pytest.raises(HydromelError, match="among: unknown candidate 'paked'; use size1, same_length"):
        build(config("batching=auto", "batching.among=[paked]")["batching"], "batching", {})
    more = "+batching@batching.candidates.token_budget=token_budget"
    more_size = "batching.candidates.token_budget.batch_size=32"
    node = config("batching=auto", more, more_size, "batching.among=[token_budget]")["batching"]
    assert [name for name, _ in build(node, "batching", {}).strategies()] == ["token_budget"]


def test_a_stream_has_one_strategy(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        (tmp_path / f"{split}.txt").write_text("the cat sat on the mat .\n" * 40, encoding="utf-8")
    options = ["task=lm", "dataset=text", f"data_dir={tmp_path}", "dataset.train=train.txt", "dataset.valid=valid.txt"]
    with pytest.raises(HydromelError, match=r"task\.unit=stream and batching=stream go together"):
        run(tmp_path / "run", *options, "task.unit=stream", "batching=auto", "encoder=lstm", "encoder.hidden=8")


def test_a_candidate_that_this_machine_cannot_run_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds, missing = SpeedProbe._seconds, "could not create a primitive descriptor for the LSTM"
    lacking = {"packed"}

    def timed(self: SpeedProbe, kind: Any, rows: Any) -> float:
        if kind.batching.layout in lacking:
            raise RuntimeError(missing)
        return seconds(self, kind, rows)

    monkeypatch.setattr(SpeedProbe, "_seconds", timed)
    options = [*tag_files(tmp_path), *MODEL, *AUTO, "train.max_updates=2", "batching.among=[packed,bucketed]"]
    with caplog.at_level("INFO"):
        result = experiment.run_experiment(run_config(*options, "tracker=none"), tmp_path / "run", 0.0)
    assert result["advice"]["chosen"] == "bucketed"
    assert result["advice"]["not_run"] == {"packed": missing}
    assert f"; not run here: packed ({missing})" in caplog.text
    lacking.add("padded")
    with pytest.raises(HydromelError, match="this machine runs none of the candidates"):
        run(tmp_path / "other", *options)
