"""The code is copied, modules in it are moved, and runs made before are gone on with, used and compared as ever."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runner.common import run_schema
from runner.common.class_names import registered, targets_in
from runner.sweeps.jobs import folder_name
from tests.helpers.composed import QUIET, run, run_config, tag_files

ROOT = Path(__file__).parents[3]
SMALL = ["encoder=rnn", "encoder.hidden=4", "embedding.size=4", "train.epochs=1"]
MOVED = {"encoder": "Rnn", "batching": "Batching", "dataset": "ColumnsFile", "task": "Tag", "tracker": "NoTracker"}
STRATEGIES = ["padmask", "packed"]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [*tag_files(tmp_path_factory.mktemp("data"), rows=40), *SMALL]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> Path:
    """The folder of runs with a sweep `s`, and a report of it beside them, made by the code as it lies here."""
    folder = tmp_path_factory.mktemp("work") / "runs"
    for strategy in STRATEGIES:
        overrides = [*options, f"batching={strategy}", "sweep.id=s"]
        run(folder / "s" / folder_name(run_config(*QUIET, *overrides)), *overrides)
    command("reporting.compare", ROOT, folder.parent, "s", "--no-mlflow", "--json", "before.json")
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code in which the modules of `MOVED` have other names."""
    copy = tmp_path_factory.mktemp("elsewhere")
    for package in ("runner", "tasks", "reporting", "configs"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    modules = [registered(role)[name].rpartition(".")[0] for role, name in MOVED.items()]
    for module in modules:
        path = copy / f"{module.replace('.', '/')}.py"
        path.rename(path.with_stem(f"{path.stem}_moved"))
    for path in [*copy.rglob("*.py"), *copy.rglob("*.yaml")]:
        text = path.read_text(encoding="utf-8")
        for module in modules:
            package, _, name = module.rpartition(".")
            for old, new in ((f"{module}.", f"{module}_moved."), (f"{module} import", f"{module}_moved import")):
                text = text.replace(old, new)
            text = text.replace(f"from {package} import {name}\n", f"from {package} import {name}_moved as {name}\n")
        path.write_text(text, encoding="utf-8")
    return copy


def command(module: str, code: Path, folder: Path, *arguments: str) -> str:
    """What a command of the code in `code` prints; it must succeed."""
    start = f"import sys, {module} as it; assert it.__file__.startswith({str(code)!r}); sys.exit(it.main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(code)}
    line = [sys.executable, "-c", start, *arguments]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def targets(folder: Path) -> set[str]:
    return set(targets_in(yaml.safe_load((folder / run_schema.RESOLVED).read_text(encoding="utf-8"))))


def test_a_sweep_goes_on_and_is_compared_with_what_was_before(runs: Path, elsewhere: Path, options: list[str]) -> None:
    before = {path.name: targets(path) for path in (runs / "s").glob("*-s1-*")}
    overrides = [*QUIET, *options, f"runs_dir={runs}", "sweep.id=s"]
    output = command(
        "runner.cli.train", elsewhere, runs.parent, "-m", *overrides, f"batching={','.join(STRATEGIES)},size1"
    )
    assert output.count("finished earlier, skipped") == len(STRATEGIES)
    (new,) = (path for path in (runs / "s").glob("*-s1-*") if path.name not in before)
    assert "runner.encoders.rnn_moved.Rnn" in targets(new)
    assert all("runner.encoders.rnn.Rnn" in item for item in before.values())

    command("reporting.compare", elsewhere, runs.parent, "s", "--no-mlflow", "--json", "after.json")
    after = json.loads((runs.parent / "after.json").read_text(encoding="utf-8"))
    (group,) = after["groups"]
    assert {strategy["name"] for strategy in group["strategies"]} == {*STRATEGIES, "size1"}


def test_a_baseline_of_before_is_judged(runs: Path, elsewhere: Path, options: list[str], tmp_path: Path) -> None:
    overrides = [*QUIET, *options, "sweep.id=new", f"batching={','.join(STRATEGIES)}"]
    command("runner.cli.train", elsewhere, tmp_path, "-m", *overrides)
    past = ("--baseline", str(runs.parent / "before.json"), "--fail-if", "test/f1 < -0.001")
    output = command("reporting.compare", elsewhere, tmp_path, "new", "--no-mlflow", *past)
    assert "test/f1" in output


def test_equal_runs_of_both_places_are_one_strategy(
    runs: Path, elsewhere: Path, options: list[str], tmp_path: Path
) -> None:
    for path in (runs / "s").glob("padmask-*"):
        shutil.copytree(path, tmp_path / "runs" / "s" / path.name)
    overrides = [*QUIET, *options, "sweep.id=s", "seed=2", "batching=padmask"]
    command("runner.cli.train", elsewhere, tmp_path, "-m", *overrides)
    assert len(list((tmp_path / "runs" / "s").glob("padmask-*"))) == 2
    command("reporting.compare", ROOT, tmp_path, "s", "--no-mlflow", "--json", "both.json")
    (group,) = json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))["groups"]
    (strategy,) = group["strategies"]
    assert (strategy["name"], len(strategy["runs"])) == ("padmask", 2)


def test_a_run_goes_on(runs: Path, elsewhere: Path, tmp_path: Path) -> None:
    (saved,) = (runs / "s").glob("packed-*")
    shutil.copytree(saved, tmp_path / "run")
    (tmp_path / "run" / run_schema.RESULT).unlink()
    assert "resuming in epoch 2" in command("runner.cli.train", elsewhere, tmp_path, "resume=run")
    assert "runner.encoders.rnn_moved.Rnn" in targets(tmp_path / "run")
    before, after = (
        json.loads((folder / run_schema.RESULT).read_text(encoding="utf-8")) for folder in (saved, tmp_path / "run")
    )
    for key in ("comparison_hash", "config_hash", "data_fingerprint"):
        assert before["provenance"][key] == after["provenance"][key], key
    assert before["metrics"]["test"]["f1"] == after["metrics"]["test"]["f1"]


def test_a_run_predicts(runs: Path, elsewhere: Path, tmp_path: Path) -> None:
    (saved,) = (runs / "s").glob("packed-*")
    (tmp_path / "text").write_text("Ann went to Rome\n", encoding="utf-8")
    arguments = (str(saved), "--input", "text", "--format", "lines", "--probabilities")
    here, there = (command("runner.cli.predict", code, tmp_path, *arguments) for code in (ROOT, elsewhere))
    assert here == there
    assert len(here.split("\t")[0].split()) == 4
