"""Gold tags that `max_length` cuts off count as missed, the same under every strategy; language models lose nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runner.components.run_components import build_strategy
from runner.data.counts import describe_counts
from runner.data.truncation import Truncation
from runner.model import build_model
from runner.ragged.ragged import Ragged
from runner.training.evaluation import evaluate
from tests.helpers.composed import data_of, parts, run_config, tag_files

ROWS = [
    [("Ann", "B-PER"), ("Lee", "I-PER"), ("in", "O"), ("Rome", "B-LOC")],
    [("a", "O"), ("Bob", "B-PER"), ("Roe", "I-PER"), ("and", "O"), ("Cid", "B-PER")],
    [("x", "O")],
    [("y", "O"), ("z", "O"), ("_", "?"), ("Oslo", "B-LOC")],
]
STRATEGIES = ("padmask", "packed", "size1", "bucketed", "same_length", "token_budget", "timestep")


def tagged_files(folder: Path) -> list[str]:
    """The same rows for each split; the overrides that read them."""
    text = "\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in row) for row in ROWS) + "\n"
    overrides = tag_files(folder)
    for split in ("train", "valid", "test"):
        (folder / f"{split}.conll").write_text(text, encoding="utf-8")
    return [*overrides, "encoder=conv", "encoder.filters=3", "embedding.size=4", "dtype=float64", "cache_dir=null"]


def figures(config: Any, split: str, data: Any, batch_size: int) -> dict[str, object]:
    """Return what an untrained model has on a split, without tables."""
    torch.manual_seed(1)
    made = parts(config)
    model = build_model(made, data.vocabs).double()
    strategy = build_strategy(config.batching, [])
    batches = strategy.evaluation_batches(data.splits[split], batch_size)
    measured = evaluate(model, made.measures.start(data.vocabs), batches, False)
    per_type: Any = measured["per_type"]
    return {name: value for name, value in measured.items() if isinstance(value, float)} | {
        "support": sum(per_type["support"].to_pylist())
    }


@pytest.mark.parametrize("max_length", [1, 2, 3, 9])
def test_every_strategy_has_all_gold_spans_and_tokens(tmp_path: Path, max_length: int) -> None:
    options = (
        *tagged_files(tmp_path),
        "dataset.span_scheme=IOB2",
        "dataset.strict_tags=false",
        "task.ignore=['?']",
        f"max_length={max_length}",
    )
    configs = [run_config(*options, f"batching={name}") for name in STRATEGIES]
    data = data_of(configs[0])
    expected = figures(configs[0], "test", data, 1)
    assert expected["support"] == 5
    for config in configs:
        for batch_size in (1, 3):
            assert figures(config, "test", data, batch_size) == pytest.approx(expected, rel=1e-12)
    kept = [tag for row in ROWS for _, tag in row[:max_length] if tag != "?"]
    counted = [tag for row in ROWS for _, tag in row if tag != "?"]
    counts = data.counts["test"]
    assert (counts["targets"], counts["cut_targets"], counts["ignored"]) == (len(kept), len(counted) - len(kept), 1)
    assert counts["cut_rows"] == sum(len(row) > max_length for row in ROWS)
    assert float(expected["accuracy"]) <= 100 * len(kept) / len(counted) + 1e-9  # type: ignore[arg-type]


def test_the_cuts_of_every_split_are_told(tmp_path: Path) -> None:
    config = run_config(*tagged_files(tmp_path), "dataset.span_scheme=null", "max_length=2")
    lines = [*describe_counts(data_of(config).counts, Truncation(2, "head"))]
    assert lines == [
        "max_length=2, truncate=head cuts off train 7 tokens of 3 rows, valid 7 tokens of 3 rows, test 7 tokens of 3 "
        "rows; targets among them, which count as missed: valid 7, test 7"
    ]


def test_a_language_model_is_evaluated_on_whole_rows(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("a b c d e\nf\n", encoding="utf-8")
    files = [f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")]
    config = run_config("task=lm", "dataset=text", f"data_dir={tmp_path}", *files, "max_length=3", "cache_dir=null")
    data = data_of(config)
    assert {split: batch.rows.host_lengths.tolist() for split, batch in data.splits.items()} == {
        "train": [3, 2],
        "valid": [6, 2],
        "test": [6, 2],
    }
    assert isinstance(data.splits["test"].target, Ragged)
    assert [*describe_counts(data.counts, Truncation(3, "head"))] == [
        "max_length=3, truncate=head cuts off train 3 tokens of 1 rows"
    ]
