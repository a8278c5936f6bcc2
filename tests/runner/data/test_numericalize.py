"""Numericalising against a slow loop, and the cache: never stale, never trusted when damaged."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from runner.common.errors import HydromelError
from runner.config.schema import Keep
from runner.data.numericalize import Data, load
from runner.data.truncation import Truncation
from runner.ragged.ragged import Ragged
from runner.text.vocab import Feature
from tests.helpers.target_batches import classify

TEXT = {
    "train": [("pos", "a b a c"), ("neg", ""), ("pos", "b a")],
    "valid": [("neg", "c z"), ("pos", "b")],
    "test": [("pos", "")],
}
WORDS = Feature(column="tokens", lowercase=False, digits_to_zero=False, min_count=2, max_size=None, extend=False)


@dataclass
class Texts:
    """A corpus in memory that counts how often it is read."""

    text: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: TEXT)
    name: str = "texts"
    reads: int = 0

    def fingerprint(self) -> str:
        return repr(self.text)

    def read(self) -> dict[str, pa.Table]:
        self.reads += 1
        return {
            split: pa.table(
                {
                    "tokens": pa.array([text.split() for _, text in rows], pa.list_(pa.string())),
                    "label": pa.array([label for label, _ in rows], pa.string()),
                }
            )
            for split, rows in self.text.items()
        }


def loaded(
    corpus: Texts,
    cache: Path | None = None,
    max_length: int | None = None,
    feature: Feature = WORDS,
    keep: Keep = "head",
) -> Data:
    task = classify(pooling="mean")
    return load(corpus, {"words": feature}, task, "task", Truncation(max_length, keep), cache)


def ids(data: Data, split: str) -> list[list[int]]:
    column = data.splits[split].features["words"]
    ends = np.cumsum(column.rows.host_lengths)
    return [column.values[end - n : end].tolist() for end, n in zip(ends, column.rows.host_lengths, strict=True)]


def content(data: Data) -> object:
    splits = {}
    for name, batch in data.splits.items():
        target = batch.target.values if isinstance(batch.target, Ragged) else batch.target
        splits[name] = (ids(data, name), target.tolist(), str(target.dtype), batch.index.tolist())
    return splits, data.vocabs, data.oov_rate, data.counts, data.fingerprint


def test_ids_are_places_in_the_vocabulary_of_train() -> None:
    data = loaded(Texts())
    tokens = data.vocabs["words"].tokens
    assert tokens[3:] == ("a", "b")  # c is seen once
    for split, rows in TEXT.items():
        expected = [[tokens.index(word) if word in tokens else 1 for word in text.split()] for _, text in rows]
        assert ids(data, split) == expected
    target = data.splits["train"].target
    assert not isinstance(target, Ragged)
    assert data.vocabs["target"].decode(target.tolist()) == ["pos", "neg", "pos"]
    assert data.oov_rate == {"train": {"words": 1 / 6}, "valid": {"words": 2 / 3}, "test": {"words": 0.0}}


def test_an_extended_vocabulary_has_ids_for_all_words_and_calls_the_same_ones_unknown(tmp_path: Path) -> None:
    extend = Feature(column="tokens", lowercase=False, digits_to_zero=False, min_count=2, max_size=None, extend=True)
    data, plain = loaded(Texts(), tmp_path, feature=extend), loaded(Texts())
    vocab, learned = data.vocabs["words"], plain.vocabs["words"]
    assert (vocab.tokens, vocab.extra) == ((*learned.tokens, "c", "z"), 2)  # c is seen once in train, z in valid alone
    assert ids(data, "valid") == [[5, 6], [4]]
    assert data.oov_rate == plain.oov_rate
    again = loaded(Texts(), tmp_path, feature=extend)
    assert (again.cached, again.vocabs) == (True, data.vocabs)


def test_rows_are_cut_and_the_cut_tokens_counted() -> None:
    whole, cut = loaded(Texts()), loaded(Texts(), max_length=1)
    assert {split: ids(cut, split) for split in TEXT} == {s: [row[:1] for row in ids(whole, s)] for s in TEXT}
    assert {split: counts["cut_tokens"] for split, counts in cut.counts.items()} == {"train": 4, "valid": 1, "test": 0}
    assert {split: counts["cut_rows"] for split, counts in cut.counts.items()} == {"train": 2, "valid": 1, "test": 0}
    assert cut.oov_rate == whole.oov_rate


def slow_cut(row: list[int], length: int, keep: str) -> list[int]:
    if len(row) <= length:
        return row
    if keep == "tail":
        return row[-length:]
    half = length // 2
    return row[: length - half] + row[len(row) - half :] if keep == "both" else row[:length]


@pytest.mark.parametrize("keep", ["head", "tail", "both"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9])
def test_what_cut_rows_keep(keep: Keep, length: int) -> None:
    rows = [("pos", " ".join("abcdefg"[:n])) for n in (7, 0, 1, 5, 4, 7, 2)]
    corpus = Texts(dict.fromkeys(TEXT, rows))
    feature = replace(WORDS, min_count=1)
    whole, cut = loaded(corpus, feature=feature), loaded(corpus, None, length, feature, keep)
    assert ids(cut, "valid") == [slow_cut(row, length, keep) for row in ids(whole, "valid")]
    lost = sum(max(0, len(text.split()) - length) for _, text in rows)
    assert {split: counts["cut_tokens"] for split, counts in cut.counts.items()} == dict.fromkeys(TEXT, lost)
    target = cut.splits["train"].target
    assert not isinstance(target, Ragged)
    assert len(target) == len(rows)


def test_the_cache_holds_the_same(tmp_path: Path) -> None:
    corpus = Texts()
    first, second = loaded(corpus, tmp_path), loaded(corpus, tmp_path)
    assert (first.cached, second.cached, corpus.reads) == (False, True, 1)
    assert content(first) == content(second) == content(loaded(Texts()))


def test_other_content_or_options_are_another_cache(tmp_path: Path) -> None:
    loaded(Texts(), tmp_path)
    changed = TEXT | {"test": [("pos", "a")]}
    assert not loaded(Texts(changed), tmp_path).cached
    assert not loaded(Texts(), tmp_path, max_length=2).cached
    assert not loaded(Texts(), tmp_path, max_length=2, keep="tail").cached
    other = Feature(column="tokens", lowercase=False, digits_to_zero=False, min_count=1, max_size=None, extend=False)
    assert not loaded(Texts(), tmp_path, feature=other).cached
    assert len(list(tmp_path.glob("*.columns"))) == 5
    assert loaded(Texts(), tmp_path).cached


def test_what_a_killed_writer_left_in_the_cache_is_removed_a_day_later(tmp_path: Path) -> None:
    child = subprocess.Popen(["true"])  # which has ended, so that no process has its number
    child.wait()
    old, new, other = (tmp_path / f".{name}.{child.pid}" for name in ("old.columns", "new.columns", "emacs"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (1.0, 1.0))
    loaded(Texts(), tmp_path)
    assert {path for path in tmp_path.iterdir() if path.name.startswith(".")} == {new, other}


def test_a_damaged_cache_is_made_anew_wherever_the_damage_is(tmp_path: Path) -> None:
    expected = content(loaded(Texts(), tmp_path))
    (path,) = tmp_path.glob("*.columns")
    whole = path.read_bytes()
    places = [0, 31, 32, 33, len(whole) // 2, len(whole) - 1]
    damaged = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    for wrong in [*damaged, b"", whole[:-1], whole[:40], whole + b"x"]:
        path.write_bytes(wrong)
        again = loaded(Texts(), tmp_path)
        assert not again.cached
        assert content(again) == expected
        assert path.read_bytes() == whole


def test_a_cache_folder_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HydromelError, match="file"):
        loaded(Texts(), tmp_path / "file")


@pytest.mark.parametrize(
    ("corpus", "line"),
    [
        (Texts({"train": TEXT["train"]}), "has no valid split; it has train"),
        (Texts(TEXT | {"test": [("new", "a")]}), "'new'"),
    ],
)
def test_what_a_corpus_lacks_is_told(corpus: Texts, line: str) -> None:
    with pytest.raises(HydromelError, match=line):
        loaded(corpus)
