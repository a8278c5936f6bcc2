"""The command `hydromel-audit`: exit codes, files, errors in one line; and its page in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from selenium import webdriver

from runner.audit import search_space
from runner.audit.gallery import cases
from runner.cli import audit as command
from runner.common.run_schema import RESOLVED
from tests.helpers.composed import config, label_files, run, tag_files

SMALL = ("encoder=rnn", "encoder.hidden=4", "embedding.size=4", "threads=1", "cache_dir=null")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_all_strategies_pass_and_the_control_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "made" / "audit.json"
    assert command.main([*tag_files(tmp_path), *SMALL, "--json", str(out), "--rows", "12"]) == 0
    output = capsys.readouterr().out
    assert "Passed: batch-invariant under bucketed, packed, padmask, same_length, size1" in output
    assert "Control: unmasked ignores the mask and fails" in output
    assert "value leak through padding at encoder.backwards.0 (Recurrence)" in output
    assert "Not audited: stream: task.unit=stream and batching=stream go together" in output
    assert {item.name for item in tmp_path.iterdir() if item.is_dir()} == {"made"}  # no run's folder
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert report["controls"] == ["unmasked"]
    assert report["facts"]["examples"] == 12
    assert {0, 1} < set(report["facts"]["lengths"])
    checks = {
        (verdict["subject"], verdict["check"], verdict["mode"]): verdict["passed"] for verdict in report["verdicts"]
    }
    assert checks["padmask", "nan", "train"] is True
    assert checks["packed", "nan", "train"] is None  # it holds no padding
    assert checks["unmasked", "content", "eval"] is False
    assert checks["bucketed", "bf16", "eval"] is checks["bucketed", "update", "train"] is True


def test_a_leak_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [*label_files(tmp_path), "encoder=conv", "encoder.filters=4", *SMALL[2:], "batching=unmasked"]
    assert command.main([*options, "task.pooling=mean", "--random"]) == 1
    output = capsys.readouterr().out
    assert "FAILED: not batch-invariant under unmasked" in output
    assert "FAIL" in output
    assert "width dependence" in output or "value leak" in output


def test_a_stream_is_audited_window_after_window(capsys: pytest.CaptureFixture[str]) -> None:
    words = "features.words.max_size=30"
    assert command.main(["task=lm", "task.unit=stream", "encoder=lstm", *SMALL[1:], words, "batching.window=7"]) == 0
    assert "Passed: batch-invariant under stream" in capsys.readouterr().out


def test_a_trained_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / "one"
    options = [*tag_files(tmp_path), *SMALL, "train.epochs=1", "batching=padmask"]
    run(folder, *options)
    (folder / RESOLVED).write_text(yaml.safe_dump(config(*options)), encoding="utf-8")  # as the command does
    few = ["--rows", "8", "--longest", "9", "--json", str(tmp_path / "a.json")]
    assert command.main([str(folder), *few]) == 0
    assert "Passed: batch-invariant under padmask" in capsys.readouterr().out
    facts = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["facts"]
    assert facts["weights"] == str(folder / "checkpoints" / "best.safetensors")
    assert command.main([str(folder), "encoder=conv"]) == 1
    assert "the config is that of the run" in capsys.readouterr().err
    assert command.main([str(folder), "batching=packed,bucketed", *few]) == 0
    assert "Passed: batch-invariant under packed, bucketed" in capsys.readouterr().out
    facts = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["facts"]
    assert facts["weights"].startswith(str(folder))
    assert command.main([str(folder / RESOLVED)]) == 1
    assert f"a file; give the run's folder, {folder}" in capsys.readouterr().err
    shutil.rmtree(folder / "checkpoints")
    assert command.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["encoder=rn"], "encoder=rn: unknown; did you mean 'rnn'?"),
        (["encoder.hiden=3"], "encoder.hiden"),
        (["+seeed=3"], "seeed: unknown option; did you mean 'seed'?"),
        (["batching=paded"], "batching=paded: unknown"),
        (["batching=stream"], "task.unit=stream and batching=stream go together"),
        (["encoder.hidden=0"], "encoder.hidden=0"),
        (["task=tag", "encoder=bow"], "one vector per token"),
        (["--rows", "3"], "--rows: '3' is not a whole number from 8"),
        (
            ["--rows", "513"],
            "--rows: '513' is not a whole number from 8 to 512: higher numbers only take longer",
        ),
        (["--longest", "5000"], "--longest: '5000' is not a whole number from 3 to 4096"),
        (["threads=-1"], "threads=-1"),
        (["seed=1,2"], "seed=1,2: one value is taken here"),
        (["--every", "encoder=bow,conv"], "encoder=bow,conv: one value is taken here"),
        (["resume=runs/old"], "resume=runs/old: name a run to audit it, as in hydromel-audit RUN"),
        (["--every", "resume=runs/old"], "resume=runs/old: name a run to audit it, as in hydromel-audit RUN"),
        (["task=tag", "batching=stream"], "got task=tag (independent rows) and batching=stream"),
        (["--rows", "many"], "--rows: 'many' is not a whole number from 8"),
        (["--longest"], "--longest: expected one argument"),
        (["--colour"], "--colour"),
        (["nowhere"], "run=nowhere: no such run"),
        (["--gallery", "task=tag"], "--gallery audits known bugs"),
        (["--gallery", "--every"], "--gallery audits known bugs and does not take --every"),
        (["--gallery", "--rows", "9"], "does not take --rows"),
        (["--gallery", "--longest", "9"], "does not take --longest"),
        (["--gallery", "--random"], "does not take --random"),
        (["--gallery", "--config-dir", "."], "does not take --config-dir"),
        (["--gallery", "run=."], "does not take ."),
        (["runs/a", "runs/b"], "runs/b: one run is audited at a time"),
        (["--gallery", "--html", "a.html"], "does not take --html"),
        (["--every", "--html", "a.html"], "--every audits configs, one line each and does not take --html"),
        (["--every", "--rows", "9"], "does not take --rows"),
        (["--config-dir", "nowhere"], "nowhere"),
        (["task"], "task"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert expected in error
    assert len(error.strip().splitlines()) == 1, error


@pytest.mark.parametrize("content", ["{{{: [", "", "just a string", "[1, 2]", "{1: 2}", "task: {}", "\x00"])
def test_a_damaged_config_of_a_run_is_one_line(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / RESOLVED).write_text(content, encoding="utf-8")
    assert command.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / RESOLVED}: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("node", ["task", "batching", "features", "encoder", "dataset", "embedding", "choices"])
def test_so_is_a_part_that_is_lost(node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for lost in ({}, None, 3, "text"):
        (tmp_path / RESOLVED).write_text(yaml.safe_dump({**config(*SMALL), node: lost}), encoding="utf-8")
        assert command.main([str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("flag", "what"), [("--json", ()), ("--html", ()), ("--json", ("--gallery",)), ("--json", ("--every",))]
)
def test_a_file_that_cannot_be_written_is_told_before_the_work(
    flag: str, what: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for bad in (tmp_path / "file" / "audit", tmp_path / "file" / "more" / "audit", tmp_path):
        assert command.main([*what, flag, str(bad)]) == 1
        out, error = capsys.readouterr()
        assert not out
        assert error.startswith(f"error: cannot write {bad}: ")
        assert len(error.splitlines()) == 1


def test_the_verdict_is_told_though_its_file_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "check_writable", lambda path: None)  # it went away meanwhile
    options = ["encoder=bow", *SMALL[2:], "batching=packed", "--rows", "8", "--longest", "9"]
    assert command.main([*options, "--json", str(tmp_path / "gone" / "audit.json")]) == 1
    out, error = capsys.readouterr()
    assert "Passed: batch-invariant under packed" in out
    assert error == f"error: cannot write {tmp_path / 'gone' / 'audit.json'}: No such file or directory\n"


def test_the_gallery_as_the_command_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "BUGS", cases.BUGS[:3])  # the tests of the gallery audit all of them
    assert command.main(["--gallery", "--json", str(tmp_path / "gallery.json")]) == 0
    assert "3 of 3 bugs caught, 3 named correctly; 3 fixed versions pass" in capsys.readouterr().out
    results: list[dict[str, Any]] = json.loads((tmp_path / "gallery.json").read_text(encoding="utf-8"))
    assert len(results) == 3
    assert all(result["caught"] and result["named"] and result["twin_passes"] for result in results)


def test_every_combination_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [combination for combination in search_space.combinations(["encoder=bow"]) if not combination.varied]
    monkeypatch.setattr(search_space, "combinations", lambda overrides, config_dir: chosen)  # one for each task
    assert command.main(["--every", "encoder=bow", "--json", str(tmp_path / "every.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok    task=classify encoder=bow: bucketed, packed, padmask")
    assert any(line.startswith("-     task=tag encoder=bow: task=tag needs one vector per token") for line in lines)
    assert lines[-1].startswith("2 of 2 models pass; 2 combinations are not possible")
    results = json.loads((tmp_path / "every.json").read_text(encoding="utf-8"))
    assert results[0]["failed"]["padmask"] == []
    assert "content" in results[0]["failed"]["unmasked"]


@pytest.mark.browser
def test_the_page(browser: webdriver.Chrome, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = label_files(tmp_path)
    words = (tmp_path / "train.txt").read_text(encoding="utf-8").replace(" the", " <script>alert(1)</script>")
    (tmp_path / "train.txt").write_text(words, encoding="utf-8")
    page = tmp_path / "audit.html"
    chosen = ["encoder=rnn", "batching=padmask,unmasked", "features.words.min_count=1"]
    assert command.main([*data, *SMALL, *chosen, "--html", str(page)]) == 0
    assert f"Page: {page}" in capsys.readouterr().out
    browser.get(f"file://{page}")
    body = browser.find_element("tag name", "body").text
    for text in ("padmask", "unmasked", "Control: unmasked ignores the mask", "where it differs", "value leak through"):
        assert text in body
    tokens = browser.execute_script("return document.body.textContent")
    assert "<script>alert(1)</script>" in tokens  # as text
    hot = browser.find_elements("css selector", ".heat td:not(.s0)")
    assert hot
    fetched = [line["message"] for line in browser.get_log("performance") if '"url":"http' in line["message"]]
    assert not [item for item in fetched if "Network.requestWillBeSent" in item]
    assert [line["message"] for line in browser.get_log("browser")] == []
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, runner.cli.audit, runner.cli.plan, runner.cli.predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_may_not_name_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for group in ("batching", "features", "dataset"):
        evil = {"_target_": "runner.cli.audit.main", "arguments": ["--gallery", "--json", str(tmp_path / "evil")]}
        node = {"words": evil} if group == "features" else evil
        (tmp_path / RESOLVED).write_text(yaml.safe_dump({**config(*SMALL), group: node}), encoding="utf-8")
        assert command.main([str(tmp_path)]) == 1
        assert "_target_=runner.cli.audit.main: not allowed in a saved run" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()


def test_a_run_does_not_say_whom_to_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "runs" / "one"
    options = [*tag_files(tmp_path), *SMALL, "train.epochs=1", "batching=padmask"]
    run(folder, *options)
    changed = config(*options)
    changed["plugins"] = ["subprocess"]
    changed["encoder"] = {"_target_": "subprocess.Popen", "args": "true"}
    (folder / RESOLVED).write_text(yaml.safe_dump(changed), encoding="utf-8")
    assert command.main([str(folder)]) == 1
    assert "encoder._target_=subprocess.Popen: not allowed" in capsys.readouterr().err
