"""`hydromel-evaluate`: figures of a run are those that it had, and those of the same text as lines."""

from __future__ import annotations

import io
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.cli.evaluate import main
from runner.common import run_schema
from runner.config.saved import write_config
from runner.experiment.run import run_experiment
from tests.helpers.composed import QUIET, label_files, run_config, tag_files

SMALL = ("train.epochs=1", "train.max_updates=4", "dtype=float64", "baselines=false")


def run_in(folder: Path, *overrides: str) -> Path:
    """A run's folder, as the command leaves it."""
    composed = run_config(*QUIET, *SMALL, *overrides, f"runs_dir={folder}")
    run = folder / "run"
    run.mkdir()
    write_config(composed, run)
    run_experiment(composed, run, 0.0)
    return run


def texts(folder: Path) -> list[str]:
    """Three files of uneven lines, empty ones among them; valid and test have words that train lacks."""
    rng = random.Random(1)
    for name, count in (("train", 90), ("valid", 20), ("test", 30)):
        known = ["the", "cat", "sät", "on", "a", "mat", "."] if name == "train" else ["the", "dog", "sät", "."]
        lines = [" ".join(rng.choice(known) for _ in range(rng.choice([0, 1, 2, 5, 12]))) for _ in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [f"dataset.{name}={name}.txt" for name in ("train", "valid", "test")]
    return ["task=lm", "dataset=text", f"data_dir={folder}", *files, "embedding.size=6"]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LSTM over a stream of words."""
    folder = tmp_path_factory.mktemp("stream")
    reads = ["task.unit=stream", "batching=stream", "batching.batch_size=4", "batching.evaluation_streams=3"]
    return run_in(folder, *texts(folder), *reads, "encoder=lstm", "encoder.hidden=6")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer on lines of pieces of words."""
    folder = tmp_path_factory.mktemp("pieces")
    size = ["encoder=transformer", "encoder.size=8", "encoder.heads=2", "encoder.feedforward=8"]
    return run_in(folder, *texts(folder), "features=bpe", "features.words.merges=4", *size, "batching=padmask")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return run_in(folder, *label_files(folder), "encoder=conv", "encoder.filters=4", "max_length=4")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagger")
    return run_in(folder, *tag_files(folder), "encoder=bgru", "encoder.hidden=4", "task.head=crf")


def measured(run: Path, *arguments: str) -> dict[str, Any]:
    """What the command writes as JSON."""
    path = run.parent / "evaluated.json"
    assert main([f"run={run}", "--json", str(path), *arguments]) == 0
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def flat(metrics: Any) -> dict[str, float]:
    """Nested figures by their path, for pytest.approx; names of labels are left out."""
    if isinstance(metrics, dict | list):
        items = metrics.items() if isinstance(metrics, dict) else enumerate(metrics)
        return {f"{key}/{rest}": value for key, item in items for rest, value in flat(item).items()}
    return {} if isinstance(metrics, str) else {"": metrics}


@pytest.mark.parametrize("kind", ["stream", "pieces", "classifier", "tagger"])
def test_a_split_has_the_figures_that_it_had(kind: str, request: pytest.FixtureRequest) -> None:
    """Tables too; at any batch size; and of valid, whose tables training did not make."""
    run = request.getfixturevalue(kind)
    had = json.loads((run / run_schema.RESULT).read_text(encoding="utf-8"))["metrics"]
    wanted = {
        name: value for name, value in had["test"].items() if not name.startswith(("calibration", "errors", "type"))
    }
    for arguments in ([], ["--batch-size", "1"], ["--split", "valid", "--batch-size", "7"]):
        content = measured(run, *arguments)
        assert content["split"] == ("valid" if "valid" in arguments else "test")
        expected = flat(had["valid"] if "valid" in arguments else wanted)
        actual = {name: value for name, value in flat(content["metrics"]).items() if name in expected}
        assert actual == pytest.approx(expected, rel=1e-9)
    if kind in ("stream", "pieces"):
        assert {"by_position", "by_frequency", "perplexity"} <= wanted.keys()


@pytest.mark.parametrize("kind", ["stream", "pieces"])
def test_a_split_and_its_file_are_equally_likely(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a stream in one piece, in any windows; each line's figures add up to it, and are those of any passages."""
    run = request.getfixturevalue(kind)
    options = ["--streams", "1", "--window", "9"] if kind == "stream" else []
    whole = measured(run, *options)["metrics"]
    if kind == "stream":
        at_once = measured(run, "--streams", "1", "--window", "1000")["metrics"]
        assert flat(at_once) == pytest.approx(flat(whole), rel=1e-9)
    text = run.parent / "test.txt"
    lines = text.read_text(encoding="utf-8").split("\n")[:-1]
    seen = set()
    for sizes in ([], ["--chunk", "1"], ["--chunk", "50", "--batch-size", "2"]):
        capsys.readouterr()
        content = measured(run, "--input", str(text), *sizes)
        assert content["lines"] == ("continued" if kind == "stream" else "independent")
        actual = content["metrics"]
        assert actual == pytest.approx({name: whole[name] for name in actual}, rel=1e-9)
        seen.add(capsys.readouterr().out)
    (out,) = seen
    rows = [line.split("\t") for line in out.splitlines()]
    assert len(rows) == len(lines) == 30
    assert sum(float(row[0]) for row in rows) == pytest.approx(whole["log_p"], abs=1e-4 * len(rows))
    assert sum(int(row[2]) for row in rows) == whole["tokens"]
    dogs = sum(line.split().count("dog") for line in lines)
    assert sum(int(row[3]) for row in rows) == whole["unknown"] == (dogs if kind == "stream" else 0)
    assert whole["words"] == sum(len(line.split()) + 1 for line in lines)
    assert whole["characters"] == len("\n".join(lines)) + 1
    assert whole["word_perplexity"] == pytest.approx(math.exp(-whole["log_p"] / whole["words"]), rel=1e-9)


def test_independent_lines_of_a_stream_know_nothing_of_each_other(
    stream: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(text: str, *arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        capsys.readouterr()
        assert main([str(stream), "--input", "-", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    first, second, third = scored("the cat\r\n\nthe cat", "--independent")
    assert first == third != second
    first, _, third = scored("the cat\n\nthe cat")
    assert first == scored("the cat")[0] != third
    (item,) = map(json.loads, scored("dog the", "--format", "jsonl"))
    assert (item["tokens"], item["unknown"], item["words"], item["characters"]) == (3, 1, 3, 8)
    assert item["nll"] == pytest.approx(-item["log_p"] / 3)
    assert scored("") == []


def test_mistakes_are_said_in_one_line(
    stream: Path, classifier: Path, tagger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    cases = {
        "gives no probabilities of text": [str(classifier), "--input", str(tmp_path / "latin")],
        "--streams has no effect on --input": [str(stream), "--streams", "1", "--input", "x"],
        "--format needs --input": [str(stream), "--format", "jsonl"],
        "this one reads rows": [str(tagger), "--streams", "2"],
        "cannot be read": [str(stream), "--input", str(tmp_path / "none")],
        "is not utf-8": [str(stream), "--input", str(tmp_path / "latin")],
        "no such run": ["nowhere"],
        "cannot write": [str(stream), "--json", str(tmp_path / "latin" / "x")],
        "see hydromel-evaluate --help": [str(stream), "--inpt", "x"],
    }
    for expected, arguments in cases.items():
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert expected in line


def test_it_is_a_filter(stream: Path) -> None:
    """stdin to stdout, figures on stderr, as much as somebody reads."""
    command = [sys.executable, "-m", "runner.cli.evaluate", str(stream), "--input", "-", "--chunk", "1"]
    shell = ["bash", "-c", f"yes the cat | {' '.join(command)} | head -2; echo ${{PIPESTATUS[*]}}"]
    done = subprocess.run(shell, capture_output=True, text=True)
    first, second, codes = done.stdout.splitlines()
    assert [line.split("\t")[2:] for line in (first, second)] == [["3", "0"], ["3", "0"]]
    assert codes.split()[1] == "141", done.stderr
    assert done.stderr == ""
