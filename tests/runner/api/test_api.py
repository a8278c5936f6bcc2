"""The Python interface answers as the commands do, bit for bit, and tells mistakes as exceptions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runner import api
from runner.cli import generate, predict
from tests.helpers.composed import label_files, pair_files, run_as_command, tag_files

SMALL = ("train.epochs=2", "optimizer.lr=0.02", "batching.batch_size=16", "baselines=false", "threads=1")
QUIET = ("tracker=none", "cache_dir=null", "train.warmup_updates=0", "run_plots=null")


def json_files(folder: Path, target: str, values: list[object]) -> list[str]:
    """Small files with a text and a target for each row; the overrides that read them."""
    for split in ("train", "valid", "test"):
        rows = [{"text": f"{'good' if row % 2 else 'bad'} x{row % 5}", target: values[row % 2]} for row in range(40)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    files = [f"dataset.{split}={split}.jsonl" for split in ("train", "valid", "test")]
    return ["dataset=jsonl", f"data_dir={folder}", "dataset.text_field=text", "dataset.tokens_field=null", *files]


def many_files(folder: Path) -> list[str]:
    return [*json_files(folder, "label", [["a"], ["a", "b"]]), "task=classify", "task.labels=many"]


def number_files(folder: Path) -> list[str]:
    return [*json_files(folder, "label", [0.5, 2.25]), "task=regress"]


FILES: dict[str, Callable[[Path], list[str]]] = {
    "classify": label_files,
    "many": many_files,
    "regress": number_files,
    "pairs": lambda folder: [*pair_files(folder), "task.pairs=apart"],
    "tag": tag_files,
}
ROWS: dict[str, list[dict[str, object]]] = {
    "pairs": [{"text": "ab bc", "text_b": "cd"}, {"text": "", "text_b": "ab"}],
    "many": [{"text": "good x1 the"}, {"text": "bad bad"}],
    "regress": [{"text": "good x1 the"}, {"text": "bad bad"}],
    "tag": [{"text": "Ann saw Rome"}, {"tokens": ["Bob", "."]}, {"text": "new"}],
}
SINGLE = [{"text": "good x1 the"}, {"tokens": ["bad", "x2"]}, {"text": "new words here and more"}]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, files in FILES.items():
        folder = tmp_path_factory.mktemp(name)
        folders[name] = run_as_command(folder / "run", *files(folder), *SMALL, "encoder=conv", "encoder.filters=8")
    return folders


@pytest.mark.parametrize("name", FILES)
def test_predictions_are_those_of_the_command(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    rows, model = ROWS.get(name, SINGLE), api.load(runs[name])
    fields = {"text": "premise", "text_b": "hypothesis"} if name == "pairs" else {}  # those of its data set
    named = [{fields.get(key, key): value for key, value in row.items()} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in named), encoding="utf-8")
    wanted = [] if name == "regress" else ["--probabilities"]
    predictions = model.predict(rows, probabilities=True)
    for form in ("jsonl", "json", "csv", "parquet"):
        arguments = ["--input", str(tmp_path / "rows.jsonl"), "--format", "jsonl", "--to", form, *wanted]
        assert predict.main([str(runs[name]), *arguments, "--output", str(tmp_path / "command")]) == 0
        saved = predictions.save(tmp_path / f"api.{form}")
        if form == "parquet":
            pd.testing.assert_frame_equal(pd.read_parquet(saved), pd.read_parquet(tmp_path / "command"))
        else:
            assert saved.read_bytes() == (tmp_path / "command").read_bytes()
    frame = pd.DataFrame(rows)  # with missing values
    assert list(model.predict(frame)) == list(predictions)
    assert list(model.predict(predictions.texts)) == list(predictions)
    assert "<table" in predictions._repr_html_()


def test_probabilities_of_every_class(runs: dict[str, Path]) -> None:
    model = api.load(runs["classify"])
    rows = ["good the", "", "bad bad dull"]
    all_classes, predicted = model.predict_proba(rows), model.predict(rows, probabilities=True).to_pandas()
    assert list(all_classes.columns) == model.classes
    assert all_classes.sum(axis=1).to_numpy() == pytest.approx(1.0)
    assert all_classes.idxmax(axis=1).tolist() == predicted["label"].tolist()
    assert all_classes.max(axis=1).to_numpy(np.float32).tolist() == predicted["label_probability"].tolist()
    of_sets = api.load(runs["many"]).predict_proba(["good", "bad"])
    assert of_sets.shape == (2, 2)
    assert ((of_sets > 0) & (of_sets < 1)).to_numpy().all()
    of_tags = api.load(runs["tag"]).predict_proba(["Ann saw", ["x"]])
    assert of_tags.index.tolist() == [(0, 0), (0, 1), (1, 0)]
    with pytest.raises(api.HydromelError, match="predicts numbers, which have no probabilities"):
        api.load(runs["regress"]).predict_proba(["x"])


def test_training_is_that_of_the_command(
    runs: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    overrides = [*label_files(folder), *SMALL, *QUIET, "encoder=conv", "encoder.filters=8", f"runs_dir={tmp_path}"]
    with caplog.at_level(logging.INFO):
        run = api.train(overrides)
    assert run.folder.parent.parent == tmp_path
    assert "epoch   2" in caplog.text
    other = api.open_run(runs["classify"])
    assert (run.metrics, run.result["updates"]) == (other.metrics, other.result["updates"])
    assert api.load(run).predict(["good"]).to_pandas().equals(api.load(other.folder).predict(["good"]).to_pandas())
    assert run.history()["valid/accuracy"].count() == 2
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
        (["hydra.run.dir=x"], "give folder="),
        ("task=tag", "options are given as a list"),
    ):
        with pytest.raises(api.HydromelError, match=message):
            api.train(bad, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mistakes_in_rows_are_told(runs: dict[str, Path], tmp_path: Path) -> None:
    model, tagger, pairs = (api.load(runs[name]) for name in ("classify", "tag", "pairs"))
    for work, message in (
        (lambda: model.predict("text"), "rows are given as a list"),
        (lambda: model.predict(["a", 1]), "row 1: field 'tokens' is 1"),
        (lambda: model.predict(pd.DataFrame({"text": ["a", None]})), "row 1: no field tokens or text"),
        (lambda: model.predict([{"words": "x"}]), "row 0: no field tokens or text; the object's fields: words"),
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
    spans = tagger.predict(["Ann saw Rome"], spans=True).to_pandas()["spans"].iloc[0]
    assert all("Ann saw Rome"[span["start"] : span["end"]] == span["text"] for span in spans)


def test_language_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("the cat sat\nthe dog sat down\n" * 8, encoding="utf-8")
    files = ["dataset=text", f"data_dir={tmp_path}", *(f"dataset.{s}={s}.txt" for s in ("train", "valid", "test"))]
    sizes = ["encoder=lstm", "encoder.hidden=8", "embedding.size=8"]
    run = run_as_command(tmp_path / "run", "task=lm", "task.unit=line", *files, *SMALL, *sizes)
    model = api.load(run)
    for options, flags in (({}, []), ({"temperature": 0.9, "seed": 3}, ["--temperature", "0.9", "--seed", "3"])):
        texts = model.generate(["the", "the dog"], max_tokens=5, **options)
        both = [f"prompt={prompt}" for prompt in ("the", "the dog")]
        assert generate.main([str(run), *both, "--max-tokens", "5", "--json", *flags]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        assert list(texts) == [line["prompt"] + line["continuations"][0]["text"] for line in lines]
        assert texts.to_pandas()["log_p"].tolist() == [line["continuations"][0]["log_p"] for line in lines]
    with pytest.raises(api.HydromelError, match="beam and temperature exclude each other"):
        model.generate("the", beam=2, temperature=1.0)
    with pytest.raises(api.HydromelError, match="unknown option 'temprature'"):
        model.generate("the", temprature=1.0)
    with pytest.raises(api.HydromelError, match="predicts no labels"):
        model.predict(["the"])


def test_audit(runs: dict[str, Path]) -> None:
    report = api.load(runs["tag"]).audit(rows=8, longest=8)
    assert report.passed
