"""Vocabularies, compared with collections.Counter."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.text.vocab import EOS, PAD, UNK, Feature, Vocab

WORDS = ["b", "a", "B", "c", "a", "b", "d", "é", UNK]


def feature(**changed: object) -> Feature:
    options = {"column": "tokens", "lowercase": False, "digits_to_zero": False, "min_count": 1, "max_size": None}
    return Feature(**options | {"extend": False} | changed)  # type: ignore[arg-type]


def table(*rows: list[str]) -> pa.Table:
    return pa.table({"tokens": pa.array(rows, pa.list_(pa.string()))})


@given(st.lists(st.sampled_from(WORDS), max_size=40), st.integers(1, 3), st.none() | st.integers(0, 3))
def test_words_are_sorted_by_decreasing_count_then_alphabet(
    words: list[str], min_count: int, max_size: int | None
) -> None:
    counts = Counter(words)
    kept = [word for word in sorted(counts, key=lambda word: (-counts[word], word)) if counts[word] >= min_count]
    kept = kept[:max_size]
    vocab = Vocab.words([pa.array(words, pa.string())], min_count, max_size)
    assert vocab.tokens == (PAD, UNK, EOS, *kept)
    expected = [3 + kept.index(word) if word in kept else 1 for word in words]  # a written <unk> is that string
    assert vocab.encode(pa.array(words, pa.string())).tolist() == expected


def test_lower_case_joins_before_counting() -> None:
    train = table(["The", "the"], [], ["THE", "É", "x"])
    assert feature(lowercase=True, min_count=2).vocab([train]).tokens[3:] == ("the",)
    assert feature(min_count=2).vocab([train]).tokens[3:] == ()
    assert feature(lowercase=True).strings(train).to_pylist() == ["the", "the", "the", "é", "x"]


def test_text_of_several_pieces() -> None:
    pieces = pa.concat_tables([table(["a", "b"]), table(["b"]), table([], ["c"])])
    assert feature().strings(pieces).to_pylist() == ["a", "b", "b", "c"]
    assert feature().vocab([pieces]).tokens[3:] == ("b", "a", "c")


def test_labels_have_no_special_strings_and_report_unknown_ones() -> None:
    labels = Vocab.labels([pa.array(["pos", "neg", "pos"])])
    assert labels.tokens == ("neg", "pos")
    assert labels.counts == (1, 2)
    assert Vocab.from_plain(labels.to_plain()) == labels
    assert labels.encode(pa.array(["pos", "new", "neg"])).tolist() == [1, -1, 0]
    assert labels.decode([1, 0]) == ["pos", "neg"]
    assert labels.ids == {"neg": 0, "pos": 1}


def test_encoded_ids_can_be_written_to() -> None:
    ids = Vocab.labels([pa.array(["a"])]).encode(pa.array(["a", "a"]))
    ids[0] = 5
    assert ids.tolist() == [5, 0]


def test_a_frozen_vocabulary() -> None:
    with pytest.raises(AttributeError):
        Vocab(("a",)).extra = 1  # type: ignore[misc]


def test_special_ids_stand_for_no_string() -> None:
    rows = table(["a", PAD, "a", UNK], [EOS, UNK])
    vocab = feature().vocab([rows])
    assert (vocab.pad, vocab.unk, vocab.eos, len(vocab)) == (0, 1, 2, 7)
    assert vocab.tokens == (PAD, UNK, EOS, UNK, "a", EOS, PAD)
    assert vocab.encode(pa.array([PAD, UNK, EOS, "a", "b", None])).tolist() == [6, 3, 5, 4, 1, 1]
    assert vocab.ids == {UNK: 3, "a": 4, EOS: 5, PAD: 6}
    assert feature(min_count=2).vocab([rows]).encode(pa.array([PAD, UNK, EOS])).tolist() == [1, 3, 1]
    extended = feature(min_count=9).vocab([rows]).extend([feature().strings(rows)])
    assert (extended.known, extended.strings) == (3, (EOS, PAD, UNK, "a"))
    assert Vocab.from_plain(extended.to_plain()) == extended


def test_a_word_by_which_the_data_marks_unknown_words() -> None:
    marked, rows = feature(unk_string=UNK), table(["a", UNK, PAD], [UNK])
    vocab = marked.vocab([rows])
    assert vocab.strings == (PAD, "a")
    assert vocab.encode(marked.strings(rows)).tolist() == [4, 1, 3, 1]
    assert vocab.extend([marked.strings(rows)]).strings == (PAD, "a")


@given(st.lists(st.sampled_from(WORDS), max_size=20), st.lists(st.sampled_from(["z", *WORDS]), max_size=20))
def test_an_extended_vocabulary_knows_every_string_and_has_learned_the_same(train: list[str], other: list[str]) -> None:
    texts = [pa.array(words, pa.string()) for words in (train, other)]
    vocab = Vocab.words([texts[0]], 2, None)
    extended = vocab.extend(texts)
    assert extended.strings == (*vocab.strings, *sorted({*train, *other} - {*vocab.strings}))
    assert (extended.known, extended.unk) == (len(vocab), 1)
    assert extended.decode(extended.encode(texts[1])) == other
