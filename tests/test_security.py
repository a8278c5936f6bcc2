"""The attacks of docs/security.md: files in an untrusted folder, and what each command says of them.

No attack runs code, tells a secret, changes another file, hangs, fills the memory or ends in a traceback.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from reporting import compare
from reporting.comparison import example_outcomes
from reporting.runs.run import read
from runner.cli import audit, evaluate, inspect, predict, sync, train
from runner.common import bounded, run_schema
from runner.common.errors import HydromelError
from runner.config.saved import write_config
from runner.experiment.run import run_experiment
from tests.helpers.composed import QUIET, label_files, run_config

MAIN = {"_target_": "runner.cli.predict.main", "arguments": ["run=x", "--plugins", "subprocess"]}
JSONL = {"_target_": "runner.tracking.tracker.JsonlTracker", "path": "evil"}
Attack = Callable[[Path], object]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run as it is left, beside its data."""
    folder = tmp_path_factory.mktemp("honest")
    small = ("train.epochs=1", "encoder=bow", "embedding.size=4", "baselines=false")
    config = run_config(*QUIET, *label_files(folder, rows=40), *small, f"runs_dir={folder}")
    write_config(config, folder / "run")
    run_experiment(config, folder / "run", 0.0)
    return folder / "run"


@pytest.fixture
def given(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that someone sent; the working directory is beside it."""
    shutil.copytree(honest, tmp_path / "given")
    (tmp_path / "victim").write_text("precious", encoding="utf-8")
    (tmp_path / "text").write_text("good\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "s3cr3t")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return Path("given")


def _resume(folder: str) -> int:
    Path(folder, run_schema.RESULT).unlink(missing_ok=True)
    sys.argv = ["hydromel", f"resume={folder}", "cache_dir=null"]
    with pytest.raises(SystemExit) as end:
        train.main()
    assert isinstance(end.value.code, int)
    return end.value.code


COMMANDS: dict[str, Callable[[str], int]] = {
    "resume": _resume,
    "predict": lambda folder: predict.main([folder, "--input", "text"]),
    "evaluate": lambda folder: evaluate.main([folder]),
    "inspect": lambda folder: inspect.main([folder]),
    "audit": lambda folder: audit.main([folder]),
    "sync": lambda folder: sync.main([folder]),
    "compare": lambda folder: compare.main([folder, "--no-mlflow"]),
}


def refused(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that refuses `given`, after which nothing has happened."""
    capfd.readouterr()
    code = COMMANDS[command]("given")
    out, error = capfd.readouterr()
    assert code == 1, (command, out, error)
    assert len(error.splitlines()) == 1, (command, error)
    assert "s3cr3t" not in out + error
    assert Path("victim").read_text(encoding="utf-8") == "precious"
    assert not Path("evil").exists()
    return error


def changed(**options: Any) -> Attack:
    """The config with other options, each merged into the node that was there unless it brings a class."""

    def attack(folder: Path) -> None:
        path = folder / run_schema.RESOLVED
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, value in options.items():
            merged = isinstance(value, dict) and "_target_" not in value
            config[key] = config[key] | value if merged else value
        path.write_text(yaml.safe_dump(config), encoding="utf-8")

    return attack


def added(name: str, text: str) -> Attack:
    def attack(folder: Path) -> None:
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(text)

    return attack


def replaced(name: str, text: str) -> Attack:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def linked(name: str, target: str) -> Attack:
    def attack(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return attack


def pipe(name: str) -> Attack:
    def attack(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return attack


def huge(name: str) -> Attack:
    """A file of four terabytes that takes no space."""

    def attack(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(2**42)

    return attack


# --- classes by role


@pytest.mark.parametrize(
    ("options", "where", "commands"),
    [
        ({"run_plots": MAIN}, "run_plots._target_=runner.cli.predict.main", "resume audit"),
        ({"optimizer": MAIN}, "optimizer._target_=runner.cli.predict.main", "resume audit"),
        ({"schedule": MAIN}, "schedule._target_=runner.cli.predict.main", "resume audit"),
        ({"search": MAIN}, "search._target_=runner.cli.predict.main", "resume audit"),
        ({"train": {"epochs": MAIN}}, "train.epochs._target_=runner.cli.predict.main", "resume audit"),
        ({"batching": MAIN}, "batching._target_=runner.cli.predict.main", "resume evaluate audit"),
        ({"encoder": MAIN}, "encoder._target_=runner.cli.predict.main", "resume predict evaluate inspect audit"),
        ({"task": {"pooling": MAIN}}, "task.pooling._target_=runner.cli.predict.main", "resume predict inspect audit"),
        ({"dataset": JSONL}, "dataset._target_=runner.tracking.tracker.JsonlTracker", "resume predict evaluate"),
        ({"encoder": {"nested": [JSONL]}}, "encoder.nested[0]._target_=runner.tracking.", "resume predict audit"),
        ({"tracker": {"_target_": "runner.encoders.bow.Bow"}}, "tracker._target_=runner.encoders.bow.Bow", "resume"),
        ({"encoder": {"_target_": [0] * 1000}}, "encoder._target_=[0, 0, 0, 0,", "predict"),
        ({"encoder": {"x" * 1000: JSONL}}, f"encoder.{'x' * 60}...._target_=runner.tracking.", "predict"),
    ],
)
def test_a_saved_config_names_only_classes_of_each_role(
    given: Path, capfd: pytest.CaptureFixture[str], options: dict[str, Any], where: str, commands: str
) -> None:
    changed(**options)(given)
    for command in commands.split():
        assert f"resolved.yaml: {where}" in (line := refused(command, capfd)), command
        assert ": not allowed in a saved run; allowed under " in line
        assert len(line) < 1500


def test_no_file_says_which_modules_are_trusted(given: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evil = {"_target_": "subprocess.Popen", "args": ["touch", "evil"]}
    changed(plugins=["subprocess"], encoder=evil)(given)
    for command in ("resume", "predict", "evaluate", "inspect", "audit"):
        assert "encoder._target_=subprocess.Popen: not allowed in a saved run" in refused(command, capfd)


def test_nothing_in_a_saved_config_is_interpolated(given: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changed(dataset={"data_dir": "${oc.env:SECRET}"}, data_dir="${oc.env:SECRET}")(given)
    for command in ("resume", "evaluate"):
        assert "${oc.env:SECRET}" in refused(command, capfd)
    assert not any(b"s3cr3t" in path.read_bytes() for path in given.rglob("*") if path.is_file())


def test_a_run_from_elsewhere_does_not_say_where_resume_writes(honest: Path, given: Path, tmp_path: Path) -> None:
    asked = run_config(*QUIET, "runs_dir=mine")
    theirs = {"tracker": JSONL | {"path": str(tmp_path / "victim")}, "cache_dir": str(tmp_path / "cache")}
    assert train.resumed(asked, given, []).runs_dir == str(honest.parent), "a run that was made here"
    changed(**theirs)(given)
    config = train.resumed(asked, given, [])
    assert (config.tracker, config.runs_dir, config.cache_dir) == (asked.tracker, "mine", None)


# --- files that fill the memory or the stack, or never end


@pytest.mark.parametrize(
    ("attack", "line"),
    [
        (added(run_schema.RESOLVED, "x: &x [1, 2]\ny: [*x, *x]\n"), "the alias *x; a saved file has no aliases"),
        (added(run_schema.RESOLVED, "x: " + "[" * 100_000), "nested more than 100 levels deep, the most allowed"),
        (added(run_schema.RESOLVED, "x: 1" + ":1" * 400_000), "a number of 800,001 digits"),
        (added(run_schema.RESOLVED, "x: !!set {a, b}\n"), "the tag tag:yaml.org,2002:set; a saved file has no tags"),
        (huge(run_schema.RESOLVED), "resolved.yaml: more than 1,048,576 bytes, the most that this file may have"),
        (linked(run_schema.RESOLVED, "/dev/zero"), ""),
        (pipe(run_schema.RESOLVED), ""),
        (changed(choices=3), ""),
        (changed(encoder={1: 2}), "the key 1 is not a string"),
    ],
    ids=range(9),
)
def test_a_config_that_hurts(given: Path, capfd: pytest.CaptureFixture[str], attack: Attack, line: str) -> None:
    attack(given)
    for command in ("resume", "predict", "audit"):
        assert line in refused(command, capfd)


@pytest.mark.parametrize(
    ("attack", "command", "line"),
    [
        (replaced(run_schema.RESULT, "[" * 100_000), "compare", "result.json is damaged: it is not JSON (recursion"),
        (huge(run_schema.RESULT), "compare", "result.json: more than 268,435,456 bytes"),
        (pipe(run_schema.RESULT), "compare", "result.json: not a regular file"),
        (replaced(run_schema.RUN, '{"x":' * 100_000), "sync", "run.json is damaged: it is not JSON (recursion"),
        (huge(run_schema.RUN), "sync", "run.json: more than 268,435,456 bytes"),
        (pipe(run_schema.RUN), "resume", "has no file run.json"),
        (replaced(run_schema.VOCABS, "[" * 100_000), "predict", "vocabs.json is damaged: it is not JSON (recursion"),
        (huge(run_schema.VOCABS), "predict", "vocabs.json: more than 2,147,483,648 bytes"),
        (added(run_schema.METRICS, "[" * 100_000 + "\n"), "resume", "is damaged: it is not JSON (recursion"),
        (added(run_schema.METRICS, "x" * 2**23 + "\n"), "resume", "a line of more than 4,194,304 bytes"),
        (huge(run_schema.METRICS), "compare", "metrics.jsonl: more than 2,147,483,648 bytes"),
        (huge(run_schema.METRICS), "resume", "metrics.jsonl: more than 2,147,483,648 bytes"),
        (pipe(f"{run_schema.CHECKPOINTS}/{run_schema.BEST}"), "predict", "there is no checkpoint"),
        (linked(run_schema.CONSOLE, "../victim"), "resume", "console.log: a link; a run writes only"),
        (linked(run_schema.METRICS, "../victim"), "resume", "metrics.jsonl: a link"),
        (linked(run_schema.LOCK, "../victim"), "resume", "run.lock: a link"),
        (linked(run_schema.LOCK, "../victim"), "sync", "run.lock: a link"),
        (linked("delivered.json.lock", "../victim"), "sync", "delivered.json.lock: a link"),
        (linked(run_schema.PLOTS, ".."), "resume", "plots: a link"),
        (pipe(run_schema.CONSOLE), "resume", "console.log: neither a file nor a folder"),
    ],
    ids=range(20),
)
def test_a_record_that_hurts(
    given: Path, capfd: pytest.CaptureFixture[str], attack: Attack, command: str, line: str
) -> None:
    attack(given)
    assert line in refused(command, capfd)


def test_a_gzip_bomb(given: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "FREE_EXPANSION_BYTES", 2**20)
    (given / "bomb.gz").write_bytes(gzip.compress(b"1 good\n" * 10**6))
    changed(dataset={"test": str((given / "bomb.gz").absolute())})(given)
    assert "bomb.gz: expands to more than 100 times its" in refused("evaluate", capfd)


def test_outcomes_that_expand(given: Path) -> None:
    path = given / run_schema.OUTCOMES
    with np.load(path) as arrays:
        content = dict(arrays)
    run = read(given).run
    assert run is not None
    assert example_outcomes.read(run) is not None
    np.savez_compressed(path, **content)
    with pytest.raises(HydromelError, match=r"outcomes\.npz is damaged: its arrays are compressed"):
        example_outcomes.read(run)
    pipe(run_schema.OUTCOMES)(given)
    with pytest.raises(HydromelError, match=r"outcomes\.npz: not a regular file"):
        example_outcomes.read(run)


# --- honest files


def test_an_honest_run_is_used_by_all_commands(given: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = json.loads((given / run_schema.RESULT).read_text(encoding="utf-8"))
    for command in ("predict", "evaluate", "audit", "sync", "compare", "resume"):
        assert COMMANDS[command]("given") == 0, (command, capfd.readouterr())
    again = json.loads((given / run_schema.RESULT).read_text(encoding="utf-8"))
    assert again["metrics"] == result["metrics"]
