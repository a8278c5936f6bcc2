"""A run begins once its config and data are known to be good, and a new try is a new run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from runner.cli import train as command
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.experiment import run as experiment
from runner.experiment.run import run_experiment
from runner.tracking.run_folder import read_metrics, read_run
from runner.training.state import Training
from tests.helpers.composed import run_config, tag_files

TINY = ("encoder=conv", "train.max_updates=2", "train.epochs=1", "run_plots=null", "tracker=jsonl", "baselines=false")


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("dataset.train=nowhere.conll", "nowhere.conll"),
        ("batching=stream", "batching=stream"),
        ("train.metric=f2", "train.metric=f2"),
        ("encoder=bow", "one vector per token"),
        ("embedding.path=nowhere.vec", "embedding.path"),
    ],
)
def test_a_mistake_leaves_no_run_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], mistake: str, says: str
) -> None:
    data = tag_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    arguments = [*data, *TINY, "cache_dir=null", mistake]
    monkeypatch.setattr(sys, "argv", ["hydromel", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == 1
    assert says in capfd.readouterr().err
    left = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {path for path in before if path.is_file()}


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the next run log a figure and fail before its first checkpoint."""

    def fail(training: Training) -> None:
        training.run.log(1, 1, {"train/loss": 77.0})
        raise error

    monkeypatch.setattr(experiment, "fit", fail)


@pytest.mark.parametrize("options", [(), ("optimizer.lr=0.002",)])
def test_a_try_after_a_failed_one_is_a_new_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    data, folder = tag_files(tmp_path), tmp_path / "runs" / "x"
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, HydromelError("the loss is nan"))
        with pytest.raises(HydromelError, match="the loss is nan"):
            run_experiment(run_config(*data, *TINY, "optimizer.lr=0.001"), folder, 0.0)
    failed = read_run(folder)
    run_experiment(run_config(*data, *TINY, "optimizer.lr=0.001", *options), folder, 0.0)
    finished, aside = read_run(folder), folder / run_schema.EARLIER / failed["run_id"]
    assert finished["run_id"] != failed["run_id"]
    assert (finished["status"], read_run(aside)) == (run_schema.FINISHED, failed)
    losses = [[line["metrics"].get("train/loss") for line, _ in read_metrics(place)] for place in (aside, folder)]
    assert losses[0] == [77.0]
    assert 77.0 not in losses[1]
    sent = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    ends = {line["run_id"]: line["status"] for line in sent if "status" in line}
    assert ends == {failed["run_id"]: run_schema.FAILED, finished["run_id"]: run_schema.FINISHED}


@pytest.mark.parametrize("same", [True, False])
def test_an_interrupted_try_goes_on_if_its_options_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    data, folder = tag_files(tmp_path), tmp_path / "runs" / "x"
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        failing(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_experiment(run_config(*data, *TINY), folder, 0.0)
    first = read_run(folder)["run_id"]
    run_experiment(run_config(*data, *TINY, *([] if same else ["seed=2"])), folder, 0.0)
    assert (read_run(folder)["run_id"] == first) is same
    assert (folder / run_schema.EARLIER).exists() is not same
