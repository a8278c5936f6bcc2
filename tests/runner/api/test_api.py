"""The Python interface answers as the commands do, bit for bit, and tells mistakes as exceptions."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runner import api
from runner.cli import generate, predict
from tests.helpers.composed import label_files
from tests.helpers.runs_of_tasks import FILES, OF_MODEL, ROWS, SMALL, write_rows

QUIET = ("tracker=none", "cache_dir=null", "train.warmup_updates=0", "run_plots=null")


@pytest.mark.parametrize("name", FILES)
def test_predictions_are_those_of_the_command(runs_of_tasks: dict[str, Path], tmp_path: Path, name: str) -> None:
    rows, model = ROWS[name], api.load(runs_of_tasks[name])
    write_rows(name, tmp_path / "rows.jsonl")
    wanted = [] if name == "regress" else ["--probabilities"]
    predictions = model.predict(rows, probabilities=True)
    for form in ("jsonl", "json", "csv", "parquet"):
        arguments = ["--input", str(tmp_path / "rows.jsonl"), "--format", "jsonl", "--to", form, *wanted]
        assert predict.main([str(runs_of_tasks[name]), *arguments, "--output", str(tmp_path / "command")]) == 0
        saved = predictions.save(tmp_path / f"api.{form}")
        if form == "parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(saved), pd.read_parquet(tmp_path / "command"))
        else:
            assert saved.read_bytes() == (tmp_path / "command").read_bytes()
    frame = pd.DataFrame(rows)  # with missing values
    assert list(model.predict(frame)) == list(predictions)
    assert list(model.predict(predictions.texts)) == list(predictions)
    assert "<table" in predictions._repr_html_()


def test_probabilities_of_every_class(runs_of_tasks: dict[str, Path]) -> None:
    model = api.load(runs_of_tasks["classify"])
    rows = ["good the", "", "bad bad dull"]
    all_classes, predicted = model.predict_proba(rows), model.predict(rows, probabilities=True).to_pandas()
    assert list(all_classes.columns) == model.classes
    assert all_classes.sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert all_classes.idxmax(axis=1).tolist() == predicted["label"].tolist()
    assert all_classes.max(axis=1).to_numpy(np.float32).tolist() == predicted["label_probability"].tolist()
    of_sets = api.load(runs_of_tasks["many"]).predict_proba(["good", "bad"])
    assert of_sets.shape == (2, 2)
    assert ((of_sets > 0) & (of_sets < 1)).to_numpy().all()
    of_tags = api.load(runs_of_tasks["tag"]).predict_proba(["Ann saw", ["x"]])
    assert of_tags.index.tolist() == [(0, 0), (0, 1), (1, 0)]
    with pytest.raises(api.HydromelError, match="predicts numbers, which have no probabilities"):
        api.load(runs_of_tasks["regress"]).predict_proba(["x"])


def test_training_is_that_of_the_command(
    runs_of_tasks: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    overrides = [*label_files(folder), *SMALL, *QUIET, *OF_MODEL, f"runs_dir={tmp_path}"]
    with caplog.at_level(logging.INFO):
        run = api.train(overrides)
    assert run.folder.parent.parent == tmp_path
    assert "epoch   2" in caplog.text
    other = api.open_run(runs_of_tasks["classify"])
    assert (run.metrics, run.result["updates"]) == (other.metrics, other.result["updates"])
    assert api.load(run).predict(["good"]).to_pandas().equals(api.load(other.folder).predict(["good"]).to_pandas())
    history = run.history()
    assert history["valid/accuracy"].count() == 2
    assert history["time"].iloc[-1].timestamp() == pytest.approx(time.time(), abs=3600)
    assert (run.predictions()["gold"] == run.predictions()["predicted"]).mean() == run.quality / 100  # type: ignore[operator]
    assert run.name in run._repr_html_()
    assert (run.folder / "model_card.md").read_text(encoding="utf-8") == run.model_card
    report = api.compare([run, other])
    assert report.strategies["runs"].tolist() == [1]  # equal seeds count once
    assert report.runs["test/accuracy"].tolist() == [run.quality]
    assert "<table" in report._repr_html_()


def test_options_may_be_a_mapping(tmp_path: Path) -> None:
    options: dict[str, Any] = {"task": "tag", "encoder": "conv", "train": {"epochs": 0}, "max_length": None}
    for bad, message in (
        ({**options, "encoder": "convv"}, "did you mean 'conv'"),
        ({"plugins": ["it's"]}, "plugins"),
        ({"train": {"epochs": object()}}, "is no value of an option"),
        ({"repeat": 3}, "api.train makes one run"),
        (["seed=1,2"], "seed=1,2: api.train makes one run; sweeps and flags are for the command, hydromel -m"),
        (["encoder.hidden=range(1,3)"], "api.train makes one run; sweeps"),
        (["-m", "seed=1,2"], "-m: api.train makes one run; sweeps"),
        (["hydra.run.dir=x"], "give folder="),
        ("task=tag", "options are given as a list"),
    ):
        with pytest.raises(api.HydromelError, match=message):
            api.train(bad, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mistakes_in_rows_are_told(runs_of_tasks: dict[str, Path], tmp_path: Path) -> None:
    model, tagger, pairs = (api.load(runs_of_tasks[name]) for name in ("classify", "tag", "pairs"))
    for work, message in (
        (lambda: model.predict("text"), "rows are given as a list"),
        (lambda: model.predict(["a", 1]), "row 1: field 'tokens' is 1"),
        (lambda: model.predict(pd.DataFrame({"text": ["a", None]})), "row 1: no field tokens or text"),
        (lambda: model.predict([{"words": "x"}]), "fields: words; rename that of the text to text"),
        (lambda: model.predict(None), "got None; rows are given as a list of texts"),
        (lambda: model.predict(["\ud800"]), "row 0: an unpaired surrogate"),
        (lambda: model.predict(["a"], spans=True), "predicts no spans"),
        (lambda: model.predict(["a"], batch_size=0), "batch_size=0"),
        (lambda: model.predict(["a"]).save(tmp_path / "x.xls"), "unknown format 'xls'"),
        (lambda: tagger.generate("a"), "predicts no next token"),
        (lambda: pairs.predict(["a"]), "this run reads pairs of texts"),
        (lambda: api.load(tmp_path / "none"), "no such run"),
        (lambda: api.open_run(tmp_path), "not a run's folder"),
        (lambda: api.compare([tmp_path / "none"]), "no run fits"),
    ):
        with pytest.raises(api.HydromelError, match=message):
            work()
    assert len(model.predict([])) == 0
    shown = tagger.predict(["Ann <b> Rome"], spans=True)._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "[" not in shown
    spans = tagger.predict(["Ann saw Rome"], spans=True).to_pandas()["spans"].iloc[0]
    assert all("Ann saw Rome"[span["start"] : span["end"]] == span["text"] for span in spans)


def test_language_model(language_model_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = api.load(language_model_run)
    for options, flags in (({}, []), ({"temperature": 0.9, "seed": 3}, ["--temperature", "0.9", "--seed", "3"])):
        texts = model.generate(["the", "the dog"], max_tokens=5, **options)
        both = [f"prompt={prompt}" for prompt in ("the", "the dog")]
        assert generate.main([str(language_model_run), *both, "--max-tokens", "5", "--json", *flags]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        assert list(texts) == [line["prompt"] + line["continuations"][0]["text"] for line in lines]
        assert texts.to_pandas()["log_p"].tolist() == [line["continuations"][0]["log_p"] for line in lines]
    with pytest.raises(api.HydromelError, match="beam and temperature exclude each other"):
        model.generate("the", beam=2, temperature=1.0)
    with pytest.raises(api.HydromelError, match="unknown option 'temprature'"):
        model.generate("the", temprature=1.0)
    with pytest.raises(api.HydromelError, match="predicts no labels"):
        model.predict(["the"])


def test_audit(runs_of_tasks: dict[str, Path]) -> None:
    report = api.load(runs_of_tasks["tag"]).audit(rows=8, longest=8)
    assert report.passed
