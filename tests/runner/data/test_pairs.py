"""Pairs of texts as tables, as rows and in the cache, compared with loops; and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from runner.common.errors import HydromelError
from runner.data.numericalize import Data, load
from runner.data.pairs import table_of_texts
from runner.data.truncation import Truncation
from runner.interfaces import Pairs
from runner.ragged.batch import Batch
from runner.text.features import Bpe
from runner.text.vocab import EOS, Feature, Vocab
from tests.helpers.target_batches import classify, lm, tag

TEXT = {
    "train": [("a b a", "c"), ("", "b b"), ("c a", ""), ("", "")],
    "valid": [("z a", "b c a")],
}
WORDS = Feature(column="tokens", lowercase=False, digits_to_zero=False, min_count=1, max_size=None, extend=False)
NAMES = Feature(column="segment", lowercase=False, digits_to_zero=False, min_count=1, max_size=None, extend=False)
STRINGS = pa.list_(pa.string())


@dataclass
class Pairings:
    """A corpus of pairs in memory."""

    name: str = "pairings"
    second: str | None = "tokens_b"
    text: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: TEXT)

    def fingerprint(self) -> str:
        return repr(self.text)

    def read(self) -> dict[str, pa.Table]:
        tables = {}
        for split, pairs in self.text.items():
            texts = [pa.array([text.split() for text in column], STRINGS) for column in zip(*pairs, strict=True)]
            columns = {"tokens": texts[0], "label": pa.array(["x"] * len(pairs)), "tags": texts[0]}
            tables[split] = pa.table(columns if self.second is None else {**columns, self.second: texts[1]})
        return tables


def loaded(pairs: Pairs | None, features: dict[str, Any] | None = None, **options: Any) -> Data:
    longest, cache = options.get("max_length"), options.get("cache")
    task = options.get("task") or classify(pairs=pairs)
    return load(
        options.get("corpus") or Pairings(), features or {"words": WORDS}, task, "", Truncation(longest, "head"), cache
    )


def strings(batch: Batch, vocab: Vocab, feature: str = "words") -> list[list[str]]:
    """Return the strings of each row of a feature."""
    ids = batch.features[feature].values.split(batch.rows.host_lengths.tolist())
    return [vocab.decode(row.tolist()) for row in ids]


def test_texts_of_pairs_apart_are_neighbouring_rows_of_one_vocabulary() -> None:
    data = loaded("apart")
    assert data.vocabs["words"].tokens[3:] == ("a", "b", "c")  # 3, 3 and 2 of both texts
    train = data.splits["train"]
    assert strings(train, data.vocabs["words"]) == [text.split() for pair in TEXT["train"] for text in pair]
    assert train.texts == 2
    assert train.lengths.tolist() == [[3, 1], [0, 2], [2, 0], [0, 0]]
    assert train.index.tolist() == [0, 1, 2, 3]
    assert data.oov_rate["valid"]["words"] == pytest.approx(1 / 5)


def test_joined_texts_are_one_row_with_a_separator() -> None:
    data = loaded("joined")
    actual = strings(data.splits["train"], data.vocabs["words"])
    assert actual == [[*first.split(), EOS, *second.split()] for first, second in TEXT["train"]]
    assert data.splits["train"].texts == 1


def test_no_text_contains_the_separator() -> None:
    text = {"train": [("a <eos> b", "<eos>"), ("", "<eos>")], "valid": [("a", "b")]}
    data = loaded("joined", corpus=Pairings(text=text))
    ids, eos = data.splits["train"].features["words"].values, data.vocabs["words"].eos
    assert (ids == eos).tolist() == [False, False, False, True, False, True, False]
    assert data.vocabs["words"].ids["<eos>"] != eos


@pytest.mark.parametrize("longest", [1, 2])
def test_max_length_cuts_each_text(longest: int) -> None:
    expected = [[text.split()[:longest] for text in pair] for pair in TEXT["train"]]
    apart, joined = (loaded(pairs, max_length=longest) for pairs in ("apart", "joined"))
    vocab = apart.vocabs["words"]
    assert strings(apart.splits["train"], vocab) == [text for pair in expected for text in pair]
    assert strings(joined.splits["train"], vocab) == [[*first, EOS, *second] for first, second in expected]
    lost = sum(len(text.split()[longest:]) for pair in TEXT["train"] for text in pair)
    assert apart.counts["train"]["cut_tokens"] == joined.counts["train"]["cut_tokens"] == lost


@pytest.mark.parametrize("pairs", ["apart", "joined"])
def test_pairs_come_back_from_the_cache(pairs: Pairs, tmp_path: Path) -> None:
    read, cached = (loaded(pairs, cache=tmp_path) for _ in range(2))
    assert cached.cached
    assert not read.cached
    for name, batch in read.splits.items():
        other = cached.splits[name]
        assert other.lengths.tolist() == batch.lengths.tolist()
        assert other.index.tolist() == batch.index.tolist()
        assert torch.equal(other.features["words"].values, batch.features["words"].values)


def test_segments_tell_the_texts_apart() -> None:
    data = loaded("joined", {"words": WORDS, "segment": NAMES})
    actual = strings(data.splits["train"], data.vocabs["segment"], "segment")
    assert actual == [["a"] * len(a.split()) + [EOS] + ["b"] * len(b.split()) for a, b in TEXT["train"]]


@pytest.mark.parametrize("pairs", ["apart", "joined"])
def test_pieces_of_both_texts(pairs: Pairs) -> None:
    pieces = Bpe(column="tokens", merges=2, min_count=1)
    data = loaded(pairs, {"words": pieces})
    assert data.splits["valid"].texts == (2 if pairs == "apart" else 1)
    actual = "|".join("".join(row) for row in strings(data.splits["valid"], data.vocabs["words"]))
    assert actual.replace("Ġ", " ") == (" z a| b c a" if pairs == "apart" else " z a<eos> b c a")


def test_other_columns_of_the_second_text_have_the_same_end() -> None:
    lists = {name: pa.array([[name]], STRINGS) for name in ("tokens", "tokens_b", "pos", "pos_b")}
    feature = Feature(column="pos", lowercase=False, digits_to_zero=False, min_count=1, max_size=None, extend=False)
    table = table_of_texts(pa.table(lists), {"pos": feature})
    assert table["pos"].to_pylist() == [["pos"], ["pos_b"]]
    with pytest.raises(
        HydromelError, match=r"^features read the column pos of both texts .* no column pos_b; the data"
    ):
        table_of_texts(pa.table(lists).drop_columns("pos_b"), {"pos": feature})


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        (None, {}, "dataset=pairings has two texts per row (tokens and tokens_b); choose task.pairs=apart ("),
        (
            "apart",
            {"corpus": Pairings(second=None)},
            "task.pairs=apart needs two texts per row, but dataset=pairings h",
        ),
        (
            None,
            {"task": tag()},
            "dataset=pairings has two texts per row (tokens and tokens_b); task=tag reads one; use",
        ),
        (None, {"task": lm()}, "dataset=pairings has two texts per row (tokens and tokens_b); task=lm reads one; use "),
    ],
)
def test_what_does_not_fit_is_refused(pairs: Pairs | None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HydromelError) as error:
        loaded(pairs, **options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_rows_of_pairs_are_selected_with_both_texts() -> None:
    train = loaded("apart").splits["train"]
    batch = train.select(np.array([2, 0]))
    assert batch.lengths.tolist() == [[2, 0], [3, 1]]
    assert batch.index.tolist() == [2, 0]
    assert batch.pad().features["words"].values.shape == (4, 3)
    assert batch.single.n_rows == 2
    assert batch.rows.n_rows == 4


def test_each_text_and_each_pair_has_its_own_seed() -> None:
    train = loaded("apart").splits["train"].with_seeds(torch.tensor([5, 6, 7, 8]))
    assert train.rows.seeds is not None
    assert train.rows.seeds.tolist() == [10, 11, 12, 13, 14, 15, 16, 17]
    chosen = train.select(np.array([3, 1]))
    assert chosen.rows.seeds is not None
    assert chosen.single.seeds is not None
    assert chosen.rows.seeds.tolist() == [16, 17, 12, 13]
    assert chosen.single.seeds.tolist() == [16, 12]
