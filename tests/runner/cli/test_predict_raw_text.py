"""hydromel-predict on raw text: the tokenizer of a run, and spans by characters of the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.predict import main
from tests.helpers.composed import run_as_command, tag_files

SMALL = ("train.epochs=3", "optimizer.lr=0.02", "batching.batch_size=16", "encoder=bow", "predictions=false")
TEXTS = ["  good,\tfine!\u00a0(it)", "", "bad\u2028sad...dull", "e\u0301 <pad> good-bad"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    rows = [f"{n % 2} {('bad, sad!', 'good, fine!')[n % 2]} (it{n % 5})" for n in range(40)]
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    files = (f"dataset.{split}={split}.txt" for split in ("train", "valid", "test"))
    run_as_command(
        folder / "run", "task=classify", "dataset=labelled", f"data_dir={folder}", *files, "tokenizer=words", *SMALL
    )
    return folder


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spans")
    run_as_command(folder / "run", *tag_files(folder), *SMALL[:3], "encoder=none", "predictions=false")
    return folder


def predicted(folder: Path, rows: list[dict[str, object]], *arguments: str) -> list[dict[str, object]]:
    (folder / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    output = folder / "out.jsonl"
    options = ["--input", str(folder / "in.jsonl"), "--output", str(output), "--format", "jsonl", *arguments]
    assert main([f"run={folder / 'run'}", *options]) == 0
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def test_a_saved_run_keeps_its_tokenizer(classifier: Path) -> None:
    split = [
        ["good", ",", "fine", "!", "(", "it", ")"],
        [],
        ["bad", "sad", ".", ".", ".", "dull"],
        ["e\u0301", "<", "pad", ">", "good", "-", "bad"],
    ]
    raw = predicted(classifier, [{"text": text} for text in TEXTS], "--probabilities")
    given = predicted(classifier, [{"tokens": tokens} for tokens in split], "--probabilities")
    mixed = predicted(classifier, [{"text": TEXTS[0]}, {"tokens": split[2]}], "--probabilities")
    assert [row["label_probability"] for row in raw] == [row["label_probability"] for row in given]
    assert [row["label_probability"] for row in mixed] == [raw[0]["label_probability"], raw[2]["label_probability"]]
    other = predicted(classifier, [{"text": TEXTS[0]}], "--probabilities", "--tokenizer", "whitespace")
    assert other[0]["label_probability"] != raw[0]["label_probability"]


def test_spans_are_slices_of_the_text(tagger: Path) -> None:
    names = (tagger / "train.conll").read_text(encoding="utf-8")
    spans_of_train = [line.split("\t")[0] for line in names.splitlines() if "B-" in line]
    name = max(set(spans_of_train), key=spans_of_train.count)
    texts = [f"\u00e9\U0001f600  {name},\u2003e\u0301 {name}!", "", f"({name})"]
    rows = predicted(tagger, [{"text": text} for text in texts], "--tokenizer", "words", "--spans")
    found = []
    for text, row in zip(texts, rows, strict=True):
        assert row["text"] == text
        spans = row["spans"]
        assert isinstance(spans, list)
        for span in spans:
            found.append(span["text"])
            assert text[span["start"] : span["end"]] == span["text"]
        assert len(spans) == sum(tag.startswith("B-") for tag in row["tags"])  # type: ignore[attr-defined]
    assert found.count(name) >= 2
    (row,) = predicted(tagger, [{"tokens": ["so", name, "x"]}], "--spans")
    joined, spans = f"so {name} x", row["spans"]
    assert isinstance(spans, list)
    assert name in [span["text"] for span in spans]
    assert all(joined[span["start"] : span["end"]] == span["text"] for span in spans)


def test_records_of_lines_have_the_text_of_their_spans(tagger: Path) -> None:
    texts = ["so  Ann\tx", "Rome"]
    (tagger / "raw.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    run, output = str(tagger / "run"), tagger / "records.jsonl"
    files = ["--input", str(tagger / "raw.txt"), "--output", str(output)]
    assert main([run, *files, "--format", "lines", "--to", "jsonl", "--spans"]) == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == texts
    for row in rows:
        assert all(row["text"][span["start"] : span["end"]] == span["text"] for span in row["spans"])


def test_runs_and_formats_without_spans(classifier: Path, tagger: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder, arguments, message in (
        (classifier, ["--format", "jsonl", "--spans"], "--spans: this run predicts no spans"),
        (tagger, ["--format", "lines", "--spans"], "--spans needs text or JSON, and JSON or Parquet out"),
        (tagger, ["--tokenizer", "words"], "--tokenizer splits raw text, and columns hold tokens"),
    ):
        (folder / "in.txt").write_text("a\n", encoding="utf-8")
        assert main([f"run={folder / 'run'}", "--input", str(folder / "in.txt"), *arguments]) == 1
        assert message in capfd.readouterr().err
