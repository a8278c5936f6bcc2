"""A small run of each kind of prediction, and rows to predict, for tests of what reads trained runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.helpers.composed import label_files, pair_files, tag_files

SMALL = ("train.epochs=2", "optimizer.lr=0.02", "batching.batch_size=16", "baselines=false", "threads=1")
OF_MODEL = ("encoder=conv", "encoder.filters=8")


def json_files(folder: Path, target: str, values: list[object]) -> list[str]:
    """Small files with a text and a target for each row; the overrides that read them."""
    for split in ("train", "valid", "test"):
        rows = [{"text": f"{'good' if row % 2 else 'bad'} x{row % 5}", target: values[row % 2]} for row in range(40)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    files = [f"dataset.{split}={split}.jsonl" for split in ("train", "valid", "test")]
    return ["dataset=jsonl", f"data_dir={folder}", "dataset.text_field=text", "dataset.tokens_field=null", *files]


def text_files(folder: Path) -> list[str]:
    """Small files of text for a language model; the overrides that read them."""
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("the cat sat\nthe dog sat down\n" * 8, encoding="utf-8")
    files = [f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")]
    return ["task=lm", "task.unit=line", "dataset=text", f"data_dir={folder}", *files]


FILES: dict[str, Callable[[Path], list[str]]] = {
    "classify": label_files,
    "many": lambda folder: [*json_files(folder, "label", [["a"], ["a", "b"]]), "task=classify", "task.labels=many"],
    "regress": lambda folder: [*json_files(folder, "label", [0.5, 2.25]), "task=regress"],
    "pairs": lambda folder: [*pair_files(folder), "task.pairs=apart"],
    "tag": tag_files,
}
_SINGLE: list[dict[str, object]] = [
    {"text": "good x1 the"},
    {"tokens": ["bad", "x2"]},
    {"text": "new words here and more"},
]
ROWS: dict[str, list[dict[str, object]]] = {
    "classify": _SINGLE,
    "many": [{"text": "good x1 the"}, {"text": "bad bad"}],
    "regress": [{"text": "good x1 the"}, {"text": "bad bad"}],
    "pairs": [{"text": "ab bc", "text_b": "cd"}, {"text": "", "text_b": "ab"}],
    "tag": [{"text": "Ann saw Rome"}, {"tokens": ["Bob", "."]}, {"text": "new"}],
}


def write_rows(name: str, file: Path) -> None:
    """Write the rows of a kind as lines of JSON, with the fields of the kind's own data set."""
    fields = {"text": "premise", "text_b": "hypothesis"} if name == "pairs" else {}
    named = [{fields.get(key, key): value for key, value in row.items()} for row in ROWS[name]]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in named), encoding="utf-8")
