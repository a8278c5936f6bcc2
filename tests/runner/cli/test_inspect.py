"""`hydromel-inspect`: what it reads, keeps and says of a run is what the model computes, whatever the windows."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from runner.cli.inspect import main
from runner.common import run_schema
from runner.inference.inspection import properties, watch
from runner.inference.inspection.reading import read
from runner.inference.inspection.show import scaled
from runner.inference.trained import TrainedModel
from runner.interfaces import START
from tests.helpers.composed import label_files, run_as_command

if TYPE_CHECKING:
    from selenium import webdriver

TEXT = 'He said "no (not yet)" to\nAnn.\n\n"Why, Bob?" </script><b>&amp;\n'


def trained(folder: Path, *overrides: str) -> Path:
    return run_as_command(folder, "train.max_updates=4", "train.epochs=1", *overrides)


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LSTM of two layers on a stream of characters, in float64."""
    folder = tmp_path_factory.mktemp("characters")
    (folder / "input.txt").write_text(TEXT * 60, encoding="utf-8")
    return trained(
        folder / "run",
        "task=lm",
        "task.unit=stream",
        "batching=stream",
        "batching.batch_size=4",
        "dataset=war_and_peace",
        "dataset.train=input.txt",
        f"data_dir={folder}",
        "encoder=lstm",
        "encoder.layers=2",
        "encoder.hidden=6",
        "embedding.size=5",
        "dtype=float64",
    )


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GRU on lines of words."""
    folder = tmp_path_factory.mktemp("words")
    rng = random.Random(1)
    lines = [
        " ".join(rng.choice(["the", "cat", '"', "sat", "."]) for _ in range(rng.choice([0, 3, 9]))) for _ in "x" * 90
    ]
    (folder / "input.txt").write_text("\n".join(lines), encoding="utf-8")
    given = ["dataset=text", "dataset.train=input.txt", f"data_dir={folder}"]
    return trained(folder / "run", "task=lm", *given, "encoder=gru", "encoder.hidden=6", "embedding.size=5")


def load(folder: Path) -> TrainedModel:
    return TrainedModel.load(folder, torch.device("cpu"), "float64", [], None)


def inspect(monkeypatch: pytest.MonkeyPatch, text: str, *arguments: str) -> int:
    """The command with a text on standard input."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    return main(list(arguments))


@pytest.mark.parametrize("window", [1, 7, 10_000])
def test_windows_change_nothing(characters: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """The hidden state of the last layer is what the encoder gives for the whole text at once."""
    run = load(characters)
    reading = read(run, TEXT, "text")
    assert "".join(reading.tokens) == TEXT
    assert reading.characters
    assert not reading.by_line
    monkeypatch.setattr(watch, "WINDOW", window)
    seen = watch.watch(run.model, reading, ("quotes", "newline"), shown=10_000)
    encoded, _ = run.model.encoder(run.model.embedding(reading.batch.features), START)  # type: ignore[operator]
    first, last = seen.layers
    assert last.parts == ("input", "forget", "output", "candidate", "hidden", "cell")
    assert last.shown.shape == (len(TEXT), 6, 6)
    hidden = encoded.values[1:].detach().float().numpy()
    np.testing.assert_allclose(last.shown[:, 4], hidden, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(seen.properties, properties.table(TEXT, ("quotes", "newline")))
    for layer in (first, last):
        for part in range(6):
            for unit in range(6):
                r = np.corrcoef(layer.shown[:, part, unit], seen.properties[:, 0])[0, 1]
                np.testing.assert_allclose(layer.correlation[part, unit, 0], r, rtol=0, atol=1e-5)
    np.testing.assert_allclose(first.closed["forget"], (first.shown[:, 1] < 0.1).mean(axis=0))
    np.testing.assert_allclose(first.open["input"], (first.shown[:, 0] > 0.9).mean(axis=0))


@pytest.mark.parametrize("rows", [1, 2, 32])
def test_lines_that_a_model_reads_by_themselves_are_read_so(
    words: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    text = ' the cat\n\n"  sat on .\nthe cat'
    run = load(words)
    reading = read(run, text, "text")
    assert reading.tokens == [" the", " cat", "\n", "\n", '"', "  sat", " on", " .", "\n", "the", " cat"]
    assert (reading.characters, reading.by_line, reading.unknown) == (False, True, 1)
    monkeypatch.setattr("runner.inference.inspection.reading._ROWS", rows)
    (layer,) = watch.watch(run.model, reading, ("quotes",), shown=10_000).layers
    assert layer.parts == ("reset", "update", "candidate", "hidden")
    np.testing.assert_allclose(layer.shown[0], layer.shown[9], rtol=0, atol=1e-6)  # `the` begins a line twice
    np.testing.assert_allclose(layer.shown[1], layer.shown[10], rtol=0, atol=1e-6)
    encoded, _ = run.model.encoder(run.model.embedding(reading.batch.features), None)  # type: ignore[operator]
    np.testing.assert_allclose(layer.shown[:, 3], encoded.values[1:].detach().numpy(), rtol=0, atol=1e-6)


def test_pieces_of_words_stand_where_they_are_written(tmp_path: Path) -> None:
    text = "the häßlich cat\n\ncat sat\nthe"
    (tmp_path / "input.txt").write_text(f"{text}\n" * 30, encoding="utf-8")
    given = [
        "dataset=text",
        "dataset.train=input.txt",
        f"data_dir={tmp_path}",
        "features=bpe",
        "features.words.merges=4",
    ]
    run = load(trained(tmp_path / "run", "task=lm", *given, "encoder=gru", "encoder.hidden=6", "embedding.size=5"))
    reading = read(run, text, "text")
    assert "".join(reading.tokens) == text
    assert reading.unknown == 0
    pieces = run.vocabs["words"].decode(reading.batch.features["words"].values[1:].tolist())
    assert len(pieces) == len(reading.tokens) > len(text.split()) + 3
    for piece, token in zip(pieces, reading.tokens, strict=True):
        if token.isascii() and token and piece.isascii():
            assert token.lstrip(" ") == ("\n" if piece == "<eos>" else piece)
    (layer,) = watch.watch(run.model, reading, ("newline",), 10_000).layers
    assert len(layer.shown) == len(pieces)


def test_a_page_and_a_record(
    characters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, record = tmp_path / "page.html", tmp_path / "record.json"
    files = ("--html", str(page), "--json", str(record))
    assert inspect(monkeypatch, TEXT, f"run={characters}", "--feature", "quotes,digit", "--cells", "2", *files) == 0
    output = capsys.readouterr().out
    result = json.loads(record.read_text(encoding="utf-8"))
    assert result["tokens"] == len(TEXT) - 1  # the last line's end is not read
    assert result["features"]["digit"] == {"description": "just after a digit", "cells": [], "gate": None}
    best = result["features"]["quotes"]["cells"]
    assert [item["part"] for item in best] == ["cell", "cell"]
    assert abs(best[0]["r"]) >= abs(best[1]["r"]) > 0
    assert f"{best[0]['layer']}/{best[0]['unit']} {best[0]['r']:+.2f}" in output
    run = load(characters)
    seen = watch.watch(run.model, read(run, TEXT[:-1], "text"), ("quotes",), 10_000)
    everything = np.abs([layer.correlation[5, :, 0] for layer in seen.layers])
    assert abs(best[0]["r"]) == pytest.approx(everything.max(), abs=1e-6)
    assert {row["gate"] for row in result["saturation"]} == {"input", "forget", "output"}
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:,|#)", html)
    assert "http" not in html
    assert html.count("</script>") == 1  # the text's own is escaped
    data = json.loads(re.search(r"const data = (.*), shades", html).group(1))  # type: ignore[union-attr]
    assert "".join(data["tokens"]) == TEXT[:-1]
    series = data["cells"][f"{best[0]['layer']}/{best[0]['unit']}"]["cell"]
    values = np.frombuffer(base64.b64decode(series["data"]), np.int8) / 127 * series["high"]
    exact = seen.layers[best[0]["layer"]].shown[:, 5, best[0]["unit"]]
    assert np.quantile(np.abs(values - exact), 0.97) <= series["high"] / 127  # but for the cut extremes
    assert "does not vary here" in output


def test_colours_mean_the_bounds_of_what_they_show() -> None:
    values = np.array([0.0, 0.25, 1.0], dtype=np.float32)
    for part, expected in (("forget", ([-1, -0.5, 1], 0.0, 1.0)), ("hidden", ([0, 0.25, 1], -1.0, 1.0))):
        actual, low, high = scaled(values, part)
        assert (actual.tolist(), low, high) == expected
    actual, low, high = scaled(np.append(np.linspace(-4, 4, 101), -90).astype(np.float32), "cell")
    assert 3.5 < high == -low < 4.5
    assert actual[-1] == -1
    assert scaled(np.zeros(3, dtype=np.float32), "cell")[0].tolist() == [0, 0, 0]


def test_text_of_the_runs_own_data_and_only_so_much_of_it(characters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"run={characters}", "--split", "valid", "--limit", "50", "--feature", "space"]) == 0
    assert "valid of war_and_peace: 50 characters." in capsys.readouterr().out
    assert main([f"run={characters}", "--input", str(characters.parent / "input.txt"), "--limit", "61"]) == 0
    assert "input.txt: 61 characters." in capsys.readouterr().out


def test_bad_input_is_answered_in_one_line(
    characters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = label_files(tmp_path)
    classifier = trained(tmp_path / "classifier", *data, "encoder=rnn", "encoder.hidden=4")
    own = f"data_dir={characters.parent}"
    text = ["task=lm", "dataset=text", "dataset.train=input.txt", own, "encoder=transformer", "encoder.size=8"]
    transformer = trained(tmp_path / "transformer", *text, "embedding.size=8", "encoder.heads=2")
    run = f"run={characters}"
    cases: list[tuple[str, list[str], str]] = [
        ("", [run], "stdin: the text has no tokens"),
        ("\n\n", [run], "stdin: the text has no tokens"),
        ("ЖЖ\nЖ", [run], "stdin: all of its 3 characters are unknown to the run"),
        (TEXT, [run, "--feature", "quote"], "feature 'quote' is unknown (--feature); did you mean 'quotes'?"),
        (TEXT, [run, "--limit", "0"], "'0' is not a whole number from 2"),
        (TEXT, [run, "--split", "test", "--input", "x"], "not allowed with argument"),
        (TEXT, [run, "--input", str(tmp_path / "no.txt")], "cannot be read (No such file"),
        (TEXT, [run, "--html", str(characters / run_schema.RESOLVED / "page.html")], "cannot write "),
        (TEXT, [f"run={classifier}"], "task=classify is not a language model"),
        (TEXT, [f"run={transformer}"], "this run's encoder has no recurrent layer"),
        (TEXT, [f"run={tmp_path}"], "holds 2 runs; give the folder of one"),
    ]
    for given, arguments, message in cases:
        code = inspect(monkeypatch, given, *arguments)
        error = capsys.readouterr().err
        assert code == 1, arguments
        assert error.startswith("error: "), arguments
        assert message in error
        assert error.count("\n") == 1


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, runner.cli.inspect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.browser
def test_the_page_in_a_browser(
    browser: webdriver.Chrome, characters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    assert inspect(monkeypatch, TEXT * 9, f"run={characters}", "--html", str(page)) == 0
    browser.get(f"file://{page}")
    shown: Any = browser.execute_script("return document.getElementById('text').textContent")
    assert shown == (TEXT * 9)[:-1].replace("\n", "↵\n")
    colours = "return [...document.querySelectorAll('#text span')].map(one => one.className).join()"
    link = browser.find_element("css selector", "a[data-feature=quotes]")
    browser.execute_script("arguments[0].click()", link)
    before = browser.execute_script(colours)
    assert " on" in before  # inside quotes is underlined
    chooser = "const e = document.getElementById('part'); e.value = 'forget'; e.onchange(); "
    after = browser.execute_script(chooser + colours)
    assert after != before
    assert browser.execute_script("return document.querySelector('#legend span').textContent") == "0.0"
    fetched = [line["message"] for line in browser.get_log("performance") if '"url":"http' in line["message"]]
    assert not [item for item in fetched if "Network.requestWillBeSent" in item]
    assert [line["message"] for line in browser.get_log("browser")] == []
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
