"""`hydromel-generate`: what it prints, as it comes; and mistakes, each in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.cli.generate import main
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.inference.generation import sampling
from tests.helpers.composed import label_files, run_as_command

SMALL = ("train.max_updates=30", "optimizer.lr=0.02", "train.epochs=9", "embedding.size=8", "baselines=false")
SPLITS = ("train", "valid", "test")
GENERATE = [sys.executable, "-m", "runner.cli.generate"]
TEXT = "the cat sat on the mat\nthe dog sat\na cat and a dog\n\nthe mat and the cat\n"


def trained(folder: Path, *overrides: str) -> Path:
    return run_as_command(folder, *SMALL, *overrides)


def text_files(folder: Path) -> list[str]:
    for name in SPLITS:
        (folder / f"{name}.txt").write_text(TEXT * 8, encoding="utf-8")
    return ["task=lm", "dataset=text", f"data_dir={folder}", *(f"dataset.{item}={item}.txt" for item in SPLITS)]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words, each row by itself."""
    folder = tmp_path_factory.mktemp("lines")
    return trained(folder / "run", *text_files(folder), "encoder=gru", "encoder.hidden=12", "dtype=float64")


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters of one long text."""
    folder = tmp_path_factory.mktemp("stream")
    item = ("task.unit=stream", "batching=stream", "batching.batch_size=2", "batching.window=9", "dataset.unit=char")
    return trained(folder / "run", *text_files(folder), *item, "encoder=conv", "encoder.filters=8", "dtype=float64")


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    code = main(arguments)
    printed = capfd.readouterr()
    assert code == 0, printed.err
    return printed.out


def objects(capfd: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said(capfd, *arguments, "--json").splitlines()]


def test_words_come_with_spaces_and_end_with_the_line(lines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (item,) = objects(capfd, f"run={lines}", "prompt=the cat")
    (actual,) = item["continuations"]
    assert actual["ended"]
    assert actual["text"] == "".join(f" {word}" for word in actual["tokens"])
    assert set(actual["tokens"]) <= set(TEXT.split())
    shown = f"the cat{actual['text']}\n"
    assert said(capfd, f"run={lines}", "prompt=the cat") == shown  # streamed
    assert said(capfd, str(lines), "prompt=the cat", "prompt=the cat") == shown * 2  # not


def test_characters_of_a_stream_go_on_through_line_ends(stream: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (one,) = objects(capfd, f"run={stream}", "prompt=the cat", "--max-tokens", "40", "--temperature", "0.9")
    (actual,) = one["continuations"]
    assert len(actual["tokens"]) == 40
    assert not actual["ended"]
    assert "\n" in actual["text"]
    assert actual["text"] == "".join("\n" if token == "<eos>" else token for token in actual["tokens"])
    drawn = ("--max-tokens", "40", "--temperature", "0.9")
    assert said(capfd, f"run={stream}", "prompt=the cat", *drawn) == f"the cat{actual['text']}\n"
    two = said(capfd, f"run={stream}", "prompt=the cat\nthe", "prompt=a", "--max-tokens", "3")
    assert two.startswith("# prompt 1, 1 of 1: log P -")
    assert two.count("# prompt 2, 1 of 1") == 1


def test_prompts_of_a_file_in_any_batches(
    lines: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blank line is an empty prompt; the same texts for every batch size, from a file and from stdin."""
    content = "the cat\n\na dog and a\r\nthe mat\n"
    (tmp_path / "prompts.txt").write_text(content, encoding="utf-8", newline="")
    methods = (["--samples", "3", "--seed", "5", "--top-p", "0.95"], ["--beam", "3", "--nbest", "2"], [])
    for method in methods:
        actual = [
            objects(capfd, str(lines), "--prompts", str(tmp_path / "prompts.txt"), "--batch-size", size, *method)
            for size in ("1", "5", "100")
        ]
        assert [item["prompt"] for item in actual[0]] == ["the cat", "", "a dog and a", "the mat"]
        for other in actual[1:]:
            assert _rounded(other) == _rounded(actual[0])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert _rounded(objects(capfd, str(lines), "--prompts", "-", *method)) == _rounded(actual[0])
        for one in actual[0]:
            scores = [other["score"] for other in one["continuations"]]
            assert scores == sorted(scores, reverse=True)


def _rounded(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def of(one: dict[str, Any]) -> dict[str, Any]:
        return one | {name: round(one[name], 9) for name in ("log_p", "score")}

    return [item | {"continuations": [of(other) for other in item["continuations"]]} for item in result]


def test_headings_name_what_is_shown(lines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    printed = said(
        capfd, str(lines), "prompt=the", "--beam", "3", "--nbest", "2", "--length-penalty", "0.7"
    ).splitlines()
    assert [line.split(":")[0] for line in printed[::2]] == ["# prompt 1, 1 of 2", "# prompt 1, 2 of 2"]
    assert all(" score -" in line for line in printed[::2])
    assert all(line.startswith("the ") or line == "the" for line in printed[1::2])


def test_unknown_words_are_named_and_read(lines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (item,) = objects(capfd, str(lines), "prompt=the zork sat on zork the <b>")
    assert item["unknown"] == ["zork", "<b>"]
    capfd.readouterr()
    assert main([str(lines), "prompt=the zork", "prompt=the cat"]) == 0
    assert capfd.readouterr().err == "warning: prompt 1: unknown tokens, read as <unk>: 'zork'\n"


def test_a_text_appears_token_by_token(stream: Path) -> None:
    """Somebody who reads the first tokens gets them long before the last; nobody reads on: 141."""
    command = [*GENERATE, str(stream), "prompt=a", "--max-tokens", "1000000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(20).startswith(b"a")
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""


def test_one_enormous_line_is_read_in_windows(
    stream: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "long.txt").write_text("the cat sat on the mat " * 400, encoding="utf-8")
    prompts = ("--prompts", str(tmp_path / "long.txt"), "--max-tokens", "9")
    whole = objects(capfd, str(stream), *prompts)
    monkeypatch.setattr("runner.inference.generation.language_model.READ_TOKENS", 100)
    assert _rounded(objects(capfd, str(stream), *prompts)) == _rounded(whole)
    assert whole[0]["unknown"] == []


def test_encodings(lines: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a file, the one that is named; of the command and of output UTF-8, whatever the locale."""
    (tmp_path / "latin.txt").write_bytes("the caté\n".encode("latin-1"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([*GENERATE, str(lines), "prompt=the caté"], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    actual = done.stdout.decode("utf-8")
    assert actual.startswith("the caté")
    assert said(capfd, str(lines), "--prompts", str(tmp_path / "latin.txt"), "--encoding", "latin-1") == actual


def _line(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that fails."""
    capfd.readouterr()
    assert main(arguments) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1, printed.err
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--beam", "3", "--temperature", "1"], "--beam and --temperature exclude each other"),
        (["--beam", "3", "--samples", "2"], "--beam and --samples"),
        (["--beam", "3", "--seed", "2"], "--beam and --seed"),
        (["--nbest", "3"], "--nbest needs a beam search; give --beam N as well"),
        (["--length-penalty", "1"], "--length-penalty needs a beam search"),
        (["--beam", "2", "--nbest", "3"], "--nbest 3: --beam 2 finds at most 2 texts; raise --beam"),
        (["--seed", "1"], "--seed has no effect without sampling"),
        (["--temperature", "0"], "'0' is not a number above 0"),
        (["--temperature", "nan"], "'nan' is not a number above 0"),
        (["--top-p", "1.5"], "'1.5' is not a number above 0 and at most 1"),
        (["--top-k", "0"], "'0' is not a whole number from 1"),
        (["--beam", "2", "--length-penalty", "inf"], "'inf' is not a number"),
        (["--max-tokens", "0"], "'0' is not a whole number from 1"),
        (["prompt=a", "--prompts", "x"], "prompt= and --prompts exclude each other; give one of them"),
        (["--prompts", "nowhere"], "--prompts nowhere: cannot be read"),
        (["the cat"], "'the cat': give one run, and each"),
        (["prompt=the\ncat"], "prompt 'the cat' has a line end, but this run reads single lines"),
        (["--prompts", "x", "--encoding", "utf-16"], "--encoding utf-16: use a known encoding with one-byte line ends"),
        (["prompt=\udcff"], "prompt= is not UTF-8"),
        (["--tempratur", "1"], "see hydromel-generate --help"),
    ],
)
def test_a_mistake(lines: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert expected in _line(capfd, f"run={lines}", *arguments)


def test_a_text_that_an_error_ends_ends_its_line(
    lines: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Iterator[Any]:
        raise HydromelError("no more positions")
        yield

    monkeypatch.setattr(sampling, "steps", broken)
    capfd.readouterr()
    assert main([f"run={lines}", "prompt=the cat"]) == 1
    assert capfd.readouterr() == ("the cat\n", "error: no more positions\n")


def test_no_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert "no run was named; give its folder, name or id" in _line(capfd, "prompt=a")
    assert "no such run" in _line(capfd, "run=nowhere", "prompt=a")


def test_a_run_that_is_no_language_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "run", *label_files(tmp_path), "encoder=none")
    assert f"{run}: task=classify predicts no next token" in _line(capfd, f"run={run}", "prompt=a")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"words": {"strings": ["a"]}}, "does not fit this config"),
        ({"target": {"strings": ["a"]}}, "does not fit this config"),
        ({"words": {"strings": None}}, "damaged, its vocabularies of words and target differ"),
        ({"words": {"specials": ["<unk>"]}}, "vocabs.json is damaged: words.specials=['<unk>']; expected [] or"),
        ({"words": {"strings": 5}}, "vocabs.json is damaged: words.strings=5"),
        ({"words": {"specials": []}}, "vocabs.json: damaged, 'words' lacks <pad>, <unk>, <eos>"),
    ],
)
def test_a_vocabulary_that_does_not_fit(
    lines: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], change: dict[str, Any], expected: str
) -> None:
    shutil.copytree(lines, tmp_path / "run")
    path = tmp_path / "run" / run_schema.VOCABS
    vocabs = json.loads(path.read_text(encoding="utf-8"))
    for name, fields in change.items():
        vocabs[name] |= {"strings": vocabs[name]["strings"][::-1]} if fields == {"strings": None} else fields
    path.write_text(json.dumps(vocabs), encoding="utf-8")
    assert expected in _line(capfd, f"run={tmp_path / 'run'}", "prompt=the zork")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from runner.cli.generate import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'mlflow', 'datasets', 'pyarrow')\n"
        "print([module for module in heavy if module in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "prompt=TEXT" in done.stdout
    assert done.stderr.strip() == "[]"
