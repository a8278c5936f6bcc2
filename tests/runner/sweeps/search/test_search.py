"""A search as a whole, over runs that train nothing (`fake_trials`), and over real ones."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reporting.runs.find import scan
from runner.cli import train as command
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.compose import compose_config
from runner.experiment.job import run_job
from runner.experiment.run import run_experiment
from runner.sweeps import slots
from runner.sweeps.search import trial
from runner.sweeps.search.outcome import EndedTrial, Outcome, best_yaml
from runner.sweeps.search.search import STUDY, Search, run_search
from runner.sweeps.search.space import Interval, Space
from runner.sweeps.search.study import INSTALL, ask
from runner.sweeps.search.trial import Ended, run_trial
from runner.tracking.tracker import JsonlTracker
from tests.helpers import fake_trials
from tests.helpers.composed import label_files

OPTIONS = [*fake_trials.OPTIONS, "sweep.id=s", "search.trials=7", "search.startup_trials=4"]
REAL = (
    *("encoder=bow", "embedding.size=4", "train.epochs=3", "train.warmup_updates=0", "cache_dir=null"),
    *("search=optuna", "+search.space.optimizer.lr={low: 0.001, high: 0.1, log: true}", "search.trials=1"),
    *("+search.space.encoder.pool={choices: [mean, max]}", "tracker=jsonl", "sweep.id=real"),
    "search.begin_with_defaults=false",
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_study_file: Path) -> Iterator[Path]:
    """A folder in which trials train nothing."""
    monkeypatch.chdir(tmp_path)
    fake_trials.use(monkeypatch, tmp_path)
    (tmp_path / "runs" / "s").mkdir(parents=True)
    shutil.copy(empty_study_file, tmp_path / "runs" / "s" / STUDY)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def found(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "runs" / "s" / "search.json").read_text(encoding="utf-8"))
    return content


@pytest.mark.usefixtures("here")
def test_a_number_is_an_id_as_well() -> None:
    search = Search.of([*OPTIONS, "sweep.id=7"], [])
    assert (search.id, search.folder) == ("7", Path("runs/7"))
    with pytest.raises(HydromelError, match=r"sweep\.id=null is for single runs"):
        Search.of([*OPTIONS, "sweep.id=null"], [])


def test_a_search_keeps_every_trial_and_goes_on(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hydromel", *OPTIONS])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == 0
    search = found(here)
    assert [item["number"] for item in search["trials"]] == list(range(7))
    for item in search["trials"]:
        rate = item["values"]["optimizer.lr"]
        assert item["evaluations"] == pytest.approx(fake_trials.curve(rate)[: len(item["evaluations"])])
        if item["ended"] == "finished":
            assert item["value"] == pytest.approx(fake_trials.curve(rate)[-1])
        run = json.loads((here / f"runs/s/trial-{item['number']:04d}" / run_schema.RUN).read_text())
        assert run["sweep_id"] == "s"
        assert run["tags"][run_schema.TAG_TRIAL] == str(item["number"])
        assert (run_schema.TAG_PRUNED in run["tags"]) == (item["ended"] == "pruned")
    finished = [item for item in search["trials"] if item["ended"] == "finished"]
    assert search["best"] == max(finished, key=lambda item: item["value"])
    assert 0 < len(finished) < 7, "the options are such that some are pruned"
    assert sum(search["importance"].values()) == pytest.approx(1.0)
    assert f"{search['best']['value']:.2f}" in capfd.readouterr().out

    before = {path: path.stat().st_mtime_ns for path in (here / "runs/s").glob(f"*/{run_schema.RUN}")}
    assert run_search([*OPTIONS, "search.trials=8"], []) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert found(here)["trials"][:7] == search["trials"]
    assert len(found(here)["trials"]) == 8
    statuses = [item.status for item in scan(here / "runs" / "s")]
    assert len(statuses) == 8  # what hydromel-compare finds: no file of the search stands in its way


def test_a_failing_trial_stops_no_other(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    choices = "+search.space={optimizer: {lr: {choices: [0.99, 0.3, 0.4]}}}"
    options = [*fake_trials.OPTIONS[:5], choices, "sweep.id=s", "search.trials=5", "search.sampler=random"]
    assert run_search(options, []) == 0
    search = found(here)
    failed = [item for item in search["trials"] if item["values"]["optimizer.lr"] == 0.99]
    assert 0 < len(failed) < 5
    assert {item["ended"] for item in search["trials"] if item not in failed} == {"finished"}
    assert {(item["ended"], item["error"]) for item in failed} == {("failed", "the loss is nan at update 3")}
    assert "failed: the loss is nan at update 3" in capfd.readouterr().out


def test_where_no_trial_finishes_there_is_no_best(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = [*fake_trials.OPTIONS[:5], "+search.space={optimizer: {lr: {choices: [0.98, 0.99]}}}", "sweep.id=s"]
    assert run_search([*options, "search.trials=1"], []) == 1
    assert "error: no trial of s finished" in capfd.readouterr().err
    assert not (here / "runs/s/experiment").exists()


def test_no_trial_begins_after_the_time_is_up(here: Path) -> None:
    assert run_search([*OPTIONS, "search.trials=null", "search.timeout_minutes=1e-9"], []) == 1
    assert found(here)["trials"] == []


def test_the_best_config_adds_to_the_experiment_what_the_command_and_the_trial_changed(here: Path) -> None:
    mine = here / "mine"
    (mine / "experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n- override /encoder: conv\n- _self_\nencoder:\n  dropout: 0.25\n"
    (mine / "experiment" / "own.yaml").write_text(text, encoding="utf-8")
    options = [
        *(
            "experiment=own",
            *OPTIONS,
            "batching=padmask",
            "search.trials=2",
            "encoder.activation=gelu",
            "+encoder.widths=[2,3]",
        ),
        "search.only_in_trials=[predictions=false]",
    ]
    assert run_search(options[:-2], [str(mine)]) == 0
    best = found(here)["best"]["values"]
    (here / "runs/s/experiment/own.yaml").write_text(text, encoding="utf-8")
    config = compose_config(["experiment=best"], here / "runs/s").resolved
    assert config["search"] is None
    assert config["predictions"] is True
    assert config["choices"]["batching"] == "padmask"
    assert (config["encoder"]["dropout"], config["encoder"]["activation"]) == (0.25, "gelu")
    assert config["train"]["epochs"] == 4
    assert (config["optimizer"]["lr"], config["embedding"]["size"]) == (best["optimizer.lr"], best["embedding.size"])


def test_what_no_file_can_say_is_told_in_the_best_config(here: Path) -> None:
    given = ["~features.chars", "plugins=[mine]", "features=[words,chars]", "experiment=svm", "seed=3", "sweep.id=s"]
    config = {"choices": {"features": ["words", "chars"], "experiment": "svm"}, "seed": 3, "a": {"b": 0.5}}
    best = EndedTrial(4, "finished", 71.5, {"a.b": 0.5}, [71.5], 1.0, None)
    outcome = Outcome("s", "accuracy", True, [best], best, None, None)
    text = best_yaml(outcome, given, config, Space({"a.b": Interval(low=0.0, high=1.0)}, frozenset()))
    assert "# also give: ~features.chars\n# also give: plugins=[mine]\n" in text
    content = yaml.safe_load(text)
    assert content["defaults"] == ["svm", {"override /features": ["words", "chars"]}, "_self_"]
    assert {key: content[key] for key in content if key not in ("defaults", "sweep")} == {
        "seed": 3,
        "a": {"b": 0.5},
        "search": None,
    }
    assert "accuracy on valid 71.5000: trial 4" in text


def test_without_optuna_one_line_says_how_to_install_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run_search(OPTIONS, []) == 1
    assert capfd.readouterr().err == f"error: {INSTALL}\n"


def test_an_unpromising_run_is_ended(here: Path) -> None:
    folder = here / "trial"
    folder.mkdir()
    config = {"optimizer": {"lr": 0.05}, "train": {"epochs": 4}, "sweep": {"id": "s", "trial": 0}}
    (folder / run_schema.RESOLVED).write_text(yaml.safe_dump(config), encoding="utf-8")
    output: list[tuple[int, float]] = []

    def unpromising(number: int, value: float) -> bool:
        output.append((number, value))
        return number == 3

    assert run_trial(folder, "accuracy", 4, unpromising) == Ended(pruned_at=3)
    assert output == list(enumerate(fake_trials.curve(0.05)[:3], start=1))
    assert json.loads((folder / run_schema.RUN).read_text())["status"] == run_schema.INTERRUPTED
    trial.mark_pruned(folder, 3, JsonlTracker(path=str(here / "all.jsonl")))
    assert json.loads((folder / run_schema.RUN).read_text())["tags"][run_schema.TAG_PRUNED] == "evaluation 3"
    assert run_schema.INTERRUPTED in (here / "all.jsonl").read_text()


def test_a_search_begins_with_the_config_as_it_is(here: Path) -> None:
    options = [*OPTIONS, "search.begin_with_defaults=true", "search.trials=1", "optimizer.lr=0.4", "embedding.size=7"]
    assert run_search(options, []) == 0
    assert found(here)["best"]["values"] == {"optimizer.lr": 0.4, "embedding.size": 7}


def test_a_metric_that_the_task_lacks_is_told(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_search([*OPTIONS, "search.metric=f2"], []) == 1
    assert "search.metric=f2: no metric of this run has such a figure. Figures: accuracy" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+search.space.optimizer.lrr={low: 1, high: 2}", "optimizer.lrr: unknown option; did you mean 'lr'?"),
        ("+search.space.encoder={choices: [rnn, con]}", "encoder=con: unknown; did you mean 'conv'?"),
        ("+search.space.encoder.dropout={low: 0.5, high: 1.5}", "encoder.dropout=1.5"),
        ("search.storage=nosuch://x", "nosuch"),
    ],
)
def test_what_cannot_be_searched_is_told_before_the_first_trial(
    here: Path, capfd: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert run_search([*OPTIONS, override], []) == 1
    error = capfd.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(here.glob("runs/s/trial-*"))


def test_a_search_that_is_killed_redoes_what_was_cut_off(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> Ended:
        raise KeyboardInterrupt

    assert run_search([*OPTIONS, "search.trials=2"], []) == 0
    with monkeypatch.context() as patched:
        patched.setattr("runner.sweeps.search.search.run_trial", killed)
        assert run_search([*OPTIONS, "search.trials=4"], []) == 130
    assert len(found(here)["trials"]) == 2
    cut = yaml.safe_load((here / "runs/s/trial-0002" / run_schema.RESOLVED).read_text(encoding="utf-8"))
    assert run_search([*OPTIONS, "search.trials=4"], []) == 0
    numbers = [item["number"] for item in found(here)["trials"]]
    assert numbers == [0, 1, 3, 4]
    assert found(here)["trials"][2]["values"]["optimizer.lr"] == cut["optimizer"]["lr"]


def test_several_trials_at_a_time_are_kept_as_one_by_one(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 3)
    monkeypatch.setattr(slots, "visible_gpus", list)
    space = "+search.space={optimizer: {lr: {choices: [0.3, 0.97]}}}"  # the second is killed
    options = [*fake_trials.OPTIONS[:5], space, "sweep.id=s", "search.sampler=random", "search.pruner=none"]
    assert run_search([*options, "search.trials=4", "search.jobs=3"], []) == 0
    parallel = found(here)["trials"]
    assert [item["number"] for item in parallel] == list(range(4))
    ended = {item["values"]["optimizer.lr"]: (item["ended"], item["error"]) for item in parallel}
    assert ended == {0.3: ("finished", None), 0.97: ("failed", "killed by SIGKILL")}
    assert "3 jobs at a time, each with 1 thread; their speeds are not comparable" in capfd.readouterr().out
    saved = yaml.safe_load((here / "runs/s/trial-0000" / run_schema.RESOLVED).read_text(encoding="utf-8"))
    assert saved["sweep"]["jobs"] == 3

    (here / "runs" / "s" / STUDY).unlink()
    search = Search.of(options, [])
    study = search.study()
    for item in parallel:
        trial = ask(study, search.options, search.space, None)
        assert search.space.values(trial.params) == item["values"], "random values are those of one trial at a time"
        study.tell(trial, 1.0)


def test_places_of_trials_that_were_cut_off_are_filled(empty_study_file: Path, tmp_path: Path) -> None:
    shutil.copy(empty_study_file, tmp_path / STUDY)
    search = Search.of([*OPTIONS, "search.sampler=random", f"search.storage=sqlite:///{tmp_path / STUDY}"], [])
    study = search.study()
    trials = [ask(study, search.options, search.space, None) for _ in range(3)]
    study.tell(trials[2], 1.0)
    again = search.study()  # the other two were running
    repeated = [ask(again, search.options, search.space, None) for _ in range(3)]
    assert [trial.params for trial in repeated[:2]] == [trial.params for trial in trials[:2]]
    assert repeated[2].params not in [trial.params for trial in trials]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a search of a real trial has run."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("OMP_NUM_THREADS", "1")
        assert run_search([*label_files(folder, 60), *REAL], []) == 0
    return folder


def test_trials_are_runs_and_the_best_config_gives_what_it_gave(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [item for item in scan(real / "runs" / "real") if item.run]
    assert [run.sweep_id for run in runs] == ["real"]
    search = json.loads((real / "runs/real/search.json").read_text(encoding="utf-8"))
    assert search["trials"][0]["values"]["optimizer.lr"] != 0.001
    for item, run in zip(search["trials"], runs, strict=True):
        assert run.run is not None
        assert item["value"] == run.run.result["metrics"]["valid"]["accuracy"]
        assert not (run.folder / run_schema.PREDICTIONS).exists()
    assert (real / "runs/real/history.png").stat().st_size > 5_000
    assert not (real / "runs/real/importance.png").exists()
    assert "too few" in search["why_not"]

    monkeypatch.chdir(real)
    config = compose_config(
        ["experiment=best", "tracker=none", "run_plots=null", "baselines=false"], real / "runs/real"
    )
    result = run_experiment(config, tmp_path / "best", 0.0)
    assert result["metrics"]["valid"]["accuracy"] == search["best"]["value"]
    assert (tmp_path / "best" / run_schema.PREDICTIONS).exists()
    assert result["sweep_id"] != "real"


def test_the_fake_speaks_as_a_job_does(real: Path) -> None:
    """The fake's exit codes and records are those of `runner.experiment.job`, so that tests with it say something."""
    folder = real / "runs/real/trial-0000"
    assert run_job(folder, 0.0) == 1  # finished already: bad input
    first = json.loads((folder / run_schema.METRICS).read_text(encoding="utf-8").splitlines()[-1])
    assert {"valid/accuracy", "train/seconds"} <= first["metrics"].keys()
