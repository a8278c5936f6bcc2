"""In which order a sweep's jobs run, and what `turn` and `repeat` make of them; nothing is trained here."""

from __future__ import annotations

import json
import statistics
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from scipy import stats

from runner.cli import train as command
from runner.common import run_schema
from runner.config.hashes import comparison_hash, config_hash, job_hash
from runner.config.schema import RunConfig
from runner.sweeps.jobs import folder_name
from runner.sweeps.order import count_jobs, reordered, samples_of
from runner.sweeps.repeat import spread
from runner.sweeps.slots import Slot
from tests.helpers.composed import run_config
from tests.helpers.run_folders import finished

QUIET = ["tracker=none", "run_plots=null", "cache_dir=null"]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """The configs of jobs, in the order in which the command runs them: each is finished at once, seed 13 fails."""
    configs: list[dict[str, Any]] = []

    def run(folder: Path, place: str, slot: Slot) -> int:
        (seed,) = {int(part[1:]) for part in folder.name.split("-") if part[1:].isdigit() and part[0] == "s"}
        configs.append(json.loads(json.dumps(written[folder])))
        if seed == 13:
            return 1
        metrics = {"valid": {"accuracy": 1.0}, "test": {"accuracy": 50.0 + seed}}
        path = finished(folder) / run_schema.RESULT
        result = json.loads(path.read_text(encoding="utf-8"))
        result["quality"]["metric"], result["metrics"] = "accuracy", metrics
        result["speed"]["real_tokens_per_s"] = 1000.0 * seed
        path.write_text(json.dumps(result), encoding="utf-8")
        return 0

    written: dict[Path, dict[str, Any]] = {}

    def write(config: RunConfig, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        written[folder] = config.resolved

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("runner.sweeps.jobs.run_job_here", run)
    monkeypatch.setattr("runner.sweeps.jobs.write_config", write)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return configs


def hydromel(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hydromel", *arguments, *QUIET])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


@pytest.mark.parametrize("command_has", list(permutations(("batching", "seed", "turn", "encoder.hidden"))))
@pytest.mark.parametrize("in_params", [(), ("batching",), ("seed", "batching"), ("batching", "turn", "encoder.hidden")])
def test_strategies_vary_fastest_then_seeds_then_turns(
    command_has: tuple[str, ...], in_params: tuple[str, ...]
) -> None:
    values = {"batching": "padmask,packed", "seed": "1,2", "turn": "1,2", "encoder.hidden": "4,5"}
    params = {key: values[key] for key in in_params}
    params, task = reordered(
        params, ["dtype=float64", *(f"{key}={values[key]}" for key in command_has if key not in params)]
    )
    overrides = OverridesParser.create().parse_overrides([*(f"{key}={value}" for key, value in params.items()), *task])
    ((*jobs,),) = BasicSweeper.split_arguments(overrides, None)
    output = [dict(override.split("=") for override in job) for job in jobs]
    assert [tuple(item[key] for key in ("encoder.hidden", "turn", "seed", "batching")) for item in output] == [
        (h, t, s, b) for h in "45" for t in "12" for s in "12" for b in ("padmask", "packed")
    ]


def test_a_named_experiments_jobs_are_in_that_order_and_run_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, done: list[dict[str, Any]]
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {batching: 'padmask,packed'}}}\n",
        encoding="utf-8",
    )
    arguments = ["--config-dir=.", "experiment=mine", "turn=1,2", "sweep.id=s", "encoder=bow"]
    assert hydromel(monkeypatch, *arguments) == 0
    wanted = [(turn, strategy) for turn in (1, 2) for strategy in ("padmask", "packed")]
    assert [(item["turn"], item["batching"]["name"]) for item in done] == wanted
    folders = {path.parent.name for path in (tmp_path / "runs" / "s").glob(f"*/{run_schema.RESULT}")}
    assert folders == {folder_name(RunConfig.of(item)) for item in done}
    assert len(folders) == 4
    assert hydromel(monkeypatch, *arguments) == 0
    assert len(done) == 4, "all are finished, none is run again"


def test_what_is_not_swept_stays_where_it_is() -> None:
    assert reordered({"a": "1,2"}, ["batching=x", "b=3", "+c=4", "batching.batch_size=1,2"]) == (
        {"a": "1,2"},
        ["b=3", "+c=4", "batching.batch_size=1,2", "batching=x"],
    )
    assert reordered({"seed": "1,2", "batching": "x,y"}, ["seed=7"]) == ({}, ["seed=7", "batching=x,y"])


def test_a_turn_changes_the_folders_name_alone() -> None:
    first, second = run_config("turn=1"), run_config("turn=2", "repeat=3")
    for hash_of in (config_hash, job_hash, comparison_hash):
        assert hash_of(first.resolved) == hash_of(second.resolved)
    assert folder_name(second) == folder_name(first).replace("-s1-", "-s1-t2-") != folder_name(first)


def test_repeats_go_on_with_what_is_missing_and_one_that_fails_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, done: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["sweep.id=r", "batching=packed", "encoder=bow"]
    assert hydromel(monkeypatch, *common, "seed=12", "repeat=3") == 1
    assert [item["seed"] for item in done] == [12, 13, 14]
    assert {item["repeat"] for item in done} == {1}
    assert {item["sweep"]["id"] for item in done} == {"r"}
    out, error = capsys.readouterr()
    assert "test accuracy: 63.00 ± 12.71 (95 %, Student's t, 2 seeds), standard deviation 1.41, range 62.00" in out
    assert "real tokens/s: median 13,000, range 12,000 to 14,000\n" in out
    assert out.endswith(f"compare: hydromel-compare {Path('runs') / 'r'}\n")
    assert "error: 1 of 3 jobs failed (packed-s13-" in error
    assert hydromel(monkeypatch, *common, "seed=12", "repeat=5") == 1
    assert [item["seed"] for item in done[3:]] == [13, 15, 16]
    assert {path.parent.name for path in (tmp_path / "runs").glob("*/*")} == {"r"}, "no folder of a single run is left"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["repeat=0"], "repeat=0"),
        (["repeat=x"], "repeat='x'"),
        (["repeat=2", "seed=x"], "seed='x'"),
        (["repeat=2", "resume=runs/x"], "continue repeat=2 with sweep.id=ID"),
        (["repeat=2", "hydra.run.dir=here"], "set runs_dir and sweep.id"),
        (["-m", "repeat=2", "batching=padmask,packed"], "repeat=2: a sweep takes seed=1,2,3 instead"),
        (["experiment=compare_batching", "repeat=2"], "repeat=2: a sweep takes seed=1,2,3 instead"),
    ],
)
def test_what_cannot_be_repeated_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    done: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    assert hydromel(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1, error
    assert not done


def result(quality: float | None, speed: float | None) -> dict[str, Any]:
    return {
        "quality": {"metric": "perplexity"},
        "metrics": {"valid": {"perplexity": quality}},
        "speed": {"real_tokens_per_s": speed},
    }


def test_the_spread_is_that_of_scipy() -> None:
    values = [3.0, 4.0, 8.0, 9.5]
    quality, speed = spread([result(value, None) for value in values])
    low, high = stats.t.interval(0.95, 3, statistics.fmean(values), stats.sem(values))
    assert quality == (
        f"valid perplexity: {(low + high) / 2:.2f} ± {(high - low) / 2:.2f} (95 %, Student's t, 4 seeds), "
        f"standard deviation {statistics.stdev(values):.2f}, range 3.00 to 9.50"
    )
    assert speed == "real tokens/s: —"
    assert spread([result(7.0, 10.4), result(None, None)]) == [
        "valid perplexity: 7.00 (of one run)",
        "real tokens/s: 10 (of one run)",
    ]
    assert spread([]) == []


def test_mistakes_of_later_jobs_are_told_before_the_first(
    monkeypatch: pytest.MonkeyPatch, done: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    mistyped = "optimizer.lr=bad will fail: optimizer.lr='bad': Input should be a valid number"
    with caplog.at_level("INFO"):
        assert hydromel(monkeypatch, "-m", "optimizer.lr=0.1,bad", "seed=1,x", "sweep.id=s", "encoder=bow,conv") == 1
    messages = [record.getMessage() for record in caplog.records]
    first = next(place for place, message in enumerate(messages) if message.startswith("--- job 1/8"))
    told = [message.partition("warning: a job with ")[2] for message in messages[:first] if "warning" in message]
    assert told == [mistyped, "seed=x will fail: seed='x': Input should be a valid integer"]
    assert {item["seed"] for item in done} == {1}
    caplog.clear()
    assert hydromel(monkeypatch, "-m", "optimizer.lr=bad", "seed=3,4", "sweep.id=all") == 1
    assert caplog.messages == ["error: optimizer.lr='bad': Input should be a valid number"]  # all would fail


def test_samples_have_every_value_of_a_sweep() -> None:
    assert samples_of(["seed=7", "task=tag", "seed=1,2", "+a.b=range(0,3)", "~metric"]) == {
        "seed=1 +a.b=0": ["seed=1", "task=tag", "+a.b=0", "~metric"],
        "seed=2": ["seed=2", "task=tag", "+a.b=0", "~metric"],
        "+a.b=1": ["seed=1", "task=tag", "+a.b=1", "~metric"],
        "+a.b=2": ["seed=1", "task=tag", "+a.b=2", "~metric"],
    }


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task=tag"], 1),
        (["seed=1,2,3", "batching=padmask,packed", "task=tag"], 6),
        (["seed=1,2", "seed=range(0,5)"], 5),
        (["batching=glob(pa*)", "seed=1,2"], 0),
    ],
)
def test_a_sweep_knows_the_number_of_its_jobs(overrides: list[str], expected: int) -> None:
    assert count_jobs(overrides) == expected
