"""Byte pair encoding: compared with the published algorithm, and exactly reversible."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from runner.data.numericalize import columns_of
from runner.inference.generation.language_model import Text
from runner.text.bpe import BYTES, SPACE, all_pieces, bytes_of, characters_in, decode_pieces, learn_merges, pieces_of
from runner.text.features import Bpe
from runner.text.pieces import MergedPieces
from runner.text.vocab import EOS, PAD, UNK, Vocab

WORDS = ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3 + ["naïve", "戦場", "👩‍🚀"] * 2
ANY_WORDS = st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters=" "), min_size=1), max_size=6)
LETTER = {byte: letter for letter, byte in BYTES.items()}


def letters(word: str) -> list[str]:
    return [LETTER[byte] for byte in f" {word}".encode()]


def merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for part in parts:
        if result and (result[-1], part) == pair:
            result[-1] += part
        else:
            result.append(part)
    return result


def slow_pieces(word: str, merges: tuple[str, ...]) -> list[str]:
    """Learn all merges one by one (Sennrich et al. 2016, algorithm 1)."""
    parts = letters(word)
    for merge in merges:
        left, right = merge.split(" ")
        parts = merged(parts, (left, right))
    return parts


@pytest.fixture(scope="module")
def merges() -> tuple[str, ...]:
    return learn_merges([pa.array(WORDS)], 30, 2)


def test_each_merge_is_of_the_most_frequent_pair(merges: tuple[str, ...]) -> None:
    words = Counter(WORDS)
    parts = {word: letters(word) for word in words}
    assert len(merges) == 30
    for merge in merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(parts[word]):
                pairs[pair] += count
        left, right = merge.split(" ")
        assert pairs[left, right] == max(pairs.values()) >= 2
        parts = {word: merged(some, (left, right)) for word, some in parts.items()}


def test_the_order_of_words_changes_no_merge(merges: tuple[str, ...]) -> None:
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(WORDS).tolist()
        assert learn_merges([pa.array(shuffled)], 30, 2) == merges


def test_pieces_equal_those_of_merging_in_order(merges: tuple[str, ...]) -> None:
    words = [*sorted(set(WORDS)), "lowest", "wider", "new", "naïveté", "x", "戦"]
    counts, pieces = pieces_of(pa.array(words), merges)
    assert counts.tolist() == [len(slow_pieces(word, merges)) for word in words]
    assert pieces.to_pylist() == [piece for word in words for piece in slow_pieces(word, merges)]
    assert counts.max() > 3 > counts.min() == 1


@given(ANY_WORDS)
def test_decoding_pieces_restores_the_words(words: list[str]) -> None:
    merges = learn_merges([pa.array(WORDS)], 30, 2)
    counts, pieces = pieces_of(pa.array(words, pa.string()), merges)
    assert counts.sum() == len(pieces)
    known = set(all_pieces(merges))
    assert set(pieces.to_pylist()) <= known
    assert "".join(decode_pieces(pieces.to_pylist())) == "".join(f" {word}" for word in words)
    assert sum(characters_in(bytes_of(piece)) for piece in pieces.to_pylist()) == sum(len(word) + 1 for word in words)
    assert sum(piece.count(SPACE) for piece in pieces.to_pylist()) == len(words)


def test_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    first, second, third = (LETTER[byte] for byte in "戦".encode())
    assert list(decode_pieces([first, second, third])) == ["", "", "戦"]
    assert "".join(decode_pieces([first, "a"])) == "�a"
    assert "".join(decode_pieces([first])) == "�"


def test_pieces_that_look_like_special_tokens_are_pieces() -> None:
    feature = Bpe(column="tokens", merges=99, min_count=2)
    table = pa.table({"tokens": pa.array([["x<eos>", "<pad>"] * 9])})
    vocab = feature.vocab([table])
    pieces = [f"{SPACE}x<eos>", f"{SPACE}<pad>"]
    assert pieces_of(pa.array(["x<eos>", "<pad>"]), vocab.merges or ())[1].to_pylist() == pieces
    ids = columns_of(table, {"words": feature}, {"words": vocab})["words"].values
    assert set(ids.tolist()) == {vocab.ids[piece] for piece in pieces}
    assert ids.min() > 2
    # Inside words, a piece can be spelled exactly as a special token.
    within = pa.table({"tokens": pa.array([["a<pad>", "b<pad>", "c<pad>"] * 9])})
    assert feature.vocab([within]).ids["<pad>"] > 2


@pytest.mark.parametrize("word", ["", " ", "a b"])
def test_bpe_refuses_strings_that_are_not_words(word: str, merges: tuple[str, ...]) -> None:
    with pytest.raises(HydromelError, match=r"^byte pair encoding splits words, got '.*'; use it if tokens are words"):
        pieces_of(pa.array(["a", word]), merges)


def test_damaged_merges_raise_a_one_line_error() -> None:
    for damaged in ("lo w", "low", " ", "l o w"):
        with pytest.raises(HydromelError, match=r"^merge '.*' does not join two pieces made before it"):
            pieces_of(pa.array(["a"]), (damaged,))


def test_a_bpe_vocabulary_learns_from_train_and_contains_every_byte() -> None:
    table = pa.table({"tokens": pa.array([["low", "<unk>", "low"], [], ["newest"]])})
    feature = Bpe(column="tokens", merges=6, min_count=2)
    vocab = feature.vocab([table])
    assert vocab.tokens[:3] == (PAD, UNK, EOS)
    assert len(vocab) == 3 + 256 + len(vocab.merges or ())
    other = pa.table({"tokens": pa.array([["slow"], ["新", "low"], []])})
    ids = columns_of(other, {"words": feature}, {"words": vocab})["words"]
    assert ids.rows.host_lengths.tolist() == [len(slow_pieces(word, vocab.merges or ())) for word in ("slow",)] + [
        sum(len(slow_pieces(word, vocab.merges or ())) for word in ("新", "low")),
        0,
    ]
    assert 1 not in ids.values.tolist()
    assert "".join(decode_pieces(vocab.decode(ids.values.numpy()))) == " slow 新 low"
    assert Vocab.from_plain(vocab.to_plain()) == vocab


def test_generated_pieces_are_written_as_words(merges: tuple[str, ...]) -> None:
    text = Text("word", by_pieces=MergedPieces(merges))
    for lines in ("lowest 戦 new\nwidest", "x\n\nlow", "low", "\nx\n"):
        cut = [pieces_of(pa.array(line.split(), pa.string()), merges)[1].to_pylist() for line in lines.split("\n")]
        tokens = [token for line in cut for token in ("\n", *line)][1:]
        assert text.joined(tokens, behind="") == lines
        assert text.joined(tokens, behind="so") == (lines if lines.startswith("\n") else f" {lines}")
    assert text.joined(["w", "est", f"{SPACE}low"], behind="new lo") == "west low"
