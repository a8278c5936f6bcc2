"""The counts of rows without tokens."""

from __future__ import annotations

from pathlib import Path

from runner.data.counts import describe_counts
from runner.data.truncation import Truncation
from tests.helpers.composed import data_of, run_config

TABLES = {
    "train": "text\tlabel\ngood\tpos\n\tpos\nbad\tneg\n\tneg\n",
    "valid": "text\tlabel\ngood\tpos\n",
    "test": "text\tlabel\n\tpos\n",
}
PAIRS = {
    "train": "a\tb\tlabel\nx\ty\tpos\n\ty\tneg\nx\t\tpos\n\t\tneg\n",
    "valid": "a\tb\tlabel\nx\ty\tpos\n",
    "test": "a\tb\tlabel\nx\ty\tneg\n",
}


def empty_rows(folder: Path, tables: dict[str, str], *options: str) -> tuple[dict[str, int], list[str]]:
    """Return the counts by split, and what the console says."""
    for split, text in tables.items():
        (folder / f"{split}.tsv").write_text(text, encoding="utf-8")
    files = [f"dataset.{split}={split}.tsv" for split in tables]
    config = run_config("task=classify", "dataset=tsv", f"data_dir={folder}", *files, *options, "cache_dir=null")
    counts = data_of(config).counts
    return {split: of["empty_rows"] for split, of in counts.items()}, [
        *describe_counts(counts, Truncation(None, "head"))
    ]


def test_rows_with_an_empty_text_are_told(tmp_path: Path) -> None:
    counts, lines = empty_rows(tmp_path, TABLES)
    assert counts == {"train": 2, "valid": 0, "test": 1}
    assert lines == ["warning: rows with an empty text, used as they are: train 2, test 1"]


def test_so_are_pairs_of_which_either_is_empty(tmp_path: Path) -> None:
    counts, lines = empty_rows(tmp_path, PAIRS, "dataset.text_columns={a: a, b: b}", "task.pairs=apart")
    assert counts == {"train": 3, "valid": 0, "test": 0}
    assert lines == ["warning: rows with an empty text, used as they are: train 3"]
