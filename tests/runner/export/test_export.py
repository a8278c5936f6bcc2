"""`hydromel-export` from the command to files that ONNX Runtime and torch run without this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from runner.cli import export, predict
from runner.common import run_schema
from runner.export import export as exporting
from runner.export import formats
from runner.export.audit import compare
from runner.export.formats import Arrays, Run
from runner.export.programs import program_of
from runner.export.real_rows import RealRows, outputs_of_run
from tests.helpers.composed import run_as_command, tag_files
from tests.helpers.untrained import untrained

DOCS = Path(__file__).parents[3] / "docs" / "export.md"
LINES = "Ann went to Rome .\nBobby saw the x a Oslo\nx\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tagger with words, characters, an LSTM and a CRF; and its file in ONNX, made by the command."""
    folder = tmp_path_factory.mktemp("tagger")
    chars = ("features=words_chars", "embedding=word_char", "embedding.parts.words.size=8")
    small = ("encoder=blstm", "encoder.hidden=8", "train.epochs=1", "optimizer.lr=0.02", "batching.batch_size=16")
    run_as_command(folder / "run", *tag_files(folder, rows=60), "task.head=crf", *chars, *small, "baselines=false")
    assert export.main([f"run={folder / 'run'}", "--output", str(folder / "tagger.onnx"), "--rows", "15"]) == 0
    return folder


def test_the_example_of_the_documentation_predicts_as_the_command(folder: Path) -> None:
    example = DOCS.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    assert "runner" not in example
    told = subprocess.run(
        [sys.executable, "-c", example], input=LINES, cwd=folder, capture_output=True, text=True, check=True
    )
    (folder / "lines.txt").write_text(LINES, encoding="utf-8")
    files = ["--input", str(folder / "lines.txt"), "--output", str(folder / "tags.txt"), "--format", "lines"]
    assert predict.main([str(folder / "run"), *files]) == 0
    assert told.stdout == (folder / "tags.txt").read_text(encoding="utf-8")


def test_the_json_has_what_the_file_needs(folder: Path) -> None:
    about = json.loads((folder / "tagger.onnx.json").read_text(encoding="utf-8"))
    assert [port["name"] for port in about["inputs"]] == ["words", "chars", "lengths"]
    assert [port["name"] for port in about["outputs"]] == ["tags", "probability", "scores"]
    assert about["audit"]["rows"] == 15
    assert about["audit"]["changed_answers"] == 0
    assert max(about["audit"]["largest_difference"].values()) < 1e-5
    run, onnx = about["measured"]["run"], about["measured"]["onnx, float32"]
    assert onnx["f1"] == run["f1"]


def test_8_bits_are_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "small.onnx"
    assert export.main([str(folder / "run"), "--output", str(output), "--rows", "4", "--int8"]) == 0
    shown = capsys.readouterr().out
    assert "onnx, int8" in shown
    assert "between batches" in shown
    cost = next(line for line in shown.splitlines() if line.startswith("8 bits: "))
    measured = json.loads((folder / "small.onnx.json").read_text(encoding="utf-8"))["measured"]
    exact, small = (measured[f"onnx, {kind}"]["f1"] for kind in ("float32", "int8"))
    assert f"test f1 {small:.2f} instead of {exact:.2f} ({small - exact:+.2f})" in cost
    assert output.stat().st_size < (folder / "tagger.onnx").stat().st_size


def test_torch_runs_its_file(folder: Path) -> None:
    output = folder / "tagger.pt2"
    assert export.main([str(folder / "run"), "--format", "torch", "--output", str(output), "--rows", "4"]) == 0
    assert json.loads((folder / "tagger.pt2.json").read_text(encoding="utf-8"))["audit"]["changed_answers"] == 0


def test_a_file_that_differs_is_not_left(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaky(*arguments: object) -> Run:
        run = formats.opened(*arguments)  # type: ignore[arg-type]

        def leak(inputs: Arrays) -> Arrays:
            tags, probability, scores = run(inputs)
            return [tags, probability, scores + np.float32(1e-3 * (inputs[0].shape[1] > 20))]

        return leak

    monkeypatch.setattr(exporting, "opened", leaky)
    assert export.main([str(folder / "run"), "--output", str(tmp_path / "tagger.onnx"), "--rows", "4"]) == 1
    error = capsys.readouterr().err
    assert "was not written, since it does not compute what the run does: `scores` of row " in error
    assert not [*tmp_path.iterdir()]


def test_a_step_of_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b c\n\nb c d e\n" * 20, encoding="utf-8")
    options = ("dataset=text", f"dataset.train={tmp_path}/text.txt", "features.words.min_count=1", "encoder=gru")
    trained = untrained("task=lm", *options, "embedding.size=4", "encoder.hidden=4")
    program, real = program_of(trained, None), RealRows.read(trained, None)
    formats.write(program, formats.trace(program), "onnx", tmp_path / "lm.onnx")
    rows = real.choose(5, np.random.default_rng(1))
    run = formats.opened("onnx", tmp_path / "lm.onnx")
    found = compare(program, run, real, rows, outputs_of_run(program, real, rows), seed=1)
    assert not found.leaks
    assert found.compared >= 14


@pytest.fixture
def some_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder RUN that looks like a run, in the current directory."""
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / run_schema.RUN).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "torch", "--output", "x.pt2", "--int8"], "--int8 needs --format onnx"),
        (["--format", "torch", "--output", "x.bin"], "x.bin: torch loads programs from files that end in .pt2 only"),
        (["--output", "x.onnx", "--rows", "1"], "'1' is not a whole number from 2"),
    ],
)
def test_arguments_that_do_not_fit(
    arguments: list[str], message: str, some_run: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["RUN", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_missing_library_is_one_line(
    some_run: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert export.main(["RUN", "--output", "x.onnx"]) == 1
    assert "--format onnx needs onnxscript: pip install hydromel[onnx]" in capsys.readouterr().err
