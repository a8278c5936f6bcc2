"""Spans, compared with seqeval and with direct implementations of the definitions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, IOE1, IOE2, Entities

from runner.common.errors import HydromelError
from tasks.spans.table import SCHEMES, all_tags, as_scheme
from tasks.spans.tags import SpanTags, illegal_positions, spans
from tests.helpers.span_tags import Row, tags_of

SEQEVAL = {"IOB1": IOB1, "IOB2": IOB2, "IOE1": IOE1, "IOE2": IOE2, "IOBES": IOBES, "BILOU": BILOU}
TYPES = ("LOC", "PER", "a-b")


def flat(rows: list[list[str]]) -> tuple[list[str], np.ndarray]:
    return [tag for row in rows for tag in row], np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(
        int
    )


def random_rows(scheme: str, seed: int, n_rows: int = 3000) -> list[list[str]]:
    """Return random rows, legal or not: any tag of the scheme anywhere, including rows of length 0 and 1."""
    rng = np.random.default_rng(seed)
    tags = all_tags(TYPES, scheme)
    weights = np.array([len(tags) / 3, *[1.0] * (len(tags) - 1)])
    draw = weights / weights.sum()
    return [[tags[i] for i in rng.choice(len(tags), rng.integers(0, 9), p=draw)] for _ in range(n_rows)]


def found(rows: list[list[str]], scheme: str, mode: str) -> set[tuple[int, int, int, str]]:
    tags, offsets = flat(rows)
    names = sorted(set(tags))
    said = SpanTags.of(names, scheme)
    ids = np.array([names.index(tag) for tag in tags], dtype=int)
    starts, ends, kinds = spans(ids, offsets, said, scheme, mode)
    row = np.searchsorted(offsets, starts, side="right") - 1
    return {
        (int(r), int(s - offsets[r]), int(e - offsets[r]), said.types[k])
        for r, s, e, k in zip(row, starts, ends, kinds, strict=True)
    }


def by_seqeval(rows: list[list[str]], scheme: str, mode: str) -> set[tuple[int, int, int, str]]:
    if mode == "strict":
        return {
            (number, entity.start, entity.end, entity.tag)
            for number, row in enumerate(Entities(rows, SEQEVAL[scheme]).entities)
            for entity in row
        }
    return {(number, start, end + 1, kind) for number, row in enumerate(rows) for kind, start, end in get_entities(row)}


@pytest.mark.parametrize("mode", ["default", "strict"])
@pytest.mark.parametrize("scheme", SEQEVAL)
def test_spans_are_those_of_seqeval(scheme: str, mode: str) -> None:
    rows = random_rows(scheme, seed=7)
    if scheme == "IOE1" and mode == "strict":  # seqeval loses spans of a single E, which are legal
        rows = [row for row in rows if not loses_spans(row)]
    if scheme == "BILOU" and mode == "default":  # seqeval does not know its letters
        expected = by_seqeval([as_iobes(row) for row in rows], "IOBES", mode)
    else:
        expected = by_seqeval(rows, scheme, mode)
    assert len(expected) > 800
    assert found(rows, scheme, mode) == expected
    suffixed = [[tag if tag == "O" else f"{tag[2:]}-{tag[0]}" for tag in row] for row in rows]
    assert found(suffixed, f"{scheme}-suffix", mode) == expected


def loses_spans(row: list[str]) -> bool:
    pairs = zip(["O", *row], row, strict=False)
    return any(tag[0] == "E" and (before == "O" or before[2:] != tag[2:]) for before, tag in pairs)


def as_iobes(row: list[str]) -> list[str]:
    return [{"L": "E", "U": "S"}.get(tag[0], tag[0]) + tag[1:] for tag in row]


def test_a_span_of_a_single_e_counts_in_ioe1() -> None:
    assert found([["E-PER", "I-PER", "O", "I-LOC"]], "IOE1", "strict") == {
        (0, 0, 1, "PER"),
        (0, 1, 2, "PER"),
        (0, 3, 4, "LOC"),
    }
    assert found([["I-PER", "E-PER", "O", "E-LOC"]], "IOE1", "strict") == set()  # neither E separates two spans


def test_default_reads_any_letter_whatever_the_scheme() -> None:
    rows = random_rows("IOBES", seed=8)
    for scheme in [name for name, layout in SCHEMES.items() if not layout.suffixed]:
        assert found(rows, scheme, "default") == by_seqeval(rows, "IOBES", "default")


def test_bmes_and_bmewo_are_iobes_with_other_letters() -> None:
    rows = random_rows("IOBES", seed=9)
    for scheme, letters in (("BMES", "BMES"), ("BMEWO", "BMEW"), ("BILOU", "BILU")):
        to = dict(zip("BIES", letters, strict=True))
        other = [[to.get(tag[0], tag[0]) + tag[1:] for tag in row] for row in rows]
        for mode in ("default", "strict"):
            assert found(other, scheme, mode) == found(rows, "IOBES", mode)


def test_prefixes_that_a_scheme_lacks_are_outside_in_strict_mode() -> None:
    assert found([["B-PER", "E-PER", "S-LOC"]], "IOB2", "strict") == {(0, 0, 1, "PER")}
    assert found([["B-PER", "E-PER", "S-LOC"]], "IOB2", "default") == {(0, 0, 2, "PER"), (0, 2, 3, "LOC")}


def test_iob1_drops_the_span_that_seqeval_drops() -> None:
    """seqeval's end patterns lack B before a B of another type, although the middle span is legal."""
    rows = [["I-PER", "B-PER", "B-LOC"]]
    assert by_seqeval(rows, "IOB1", "strict") == {(0, 0, 1, "PER")}
    assert found(rows, "IOB1", "strict") == {(0, 0, 1, "PER")}


def test_malformed_tags_are_outside() -> None:
    rows = [["B-PER", "X-PER", "I-PER", "B-", "I", "", "PER"]]
    assert found(rows, "IOB2", "default") == {(0, 0, 1, "PER"), (0, 2, 3, "PER")}
    assert found(rows, "IOB2", "strict") == {(0, 0, 1, "PER")}


def test_no_span_reaches_over_the_end_of_a_row() -> None:
    rows = [["B-PER"], [], ["I-PER"], ["I-PER", "I-PER"]]
    assert found(rows, "IOB2", "default") == {(0, 0, 1, "PER"), (2, 0, 1, "PER"), (3, 0, 2, "PER")}
    assert found([[], []], "IOB2", "default") == set()
    assert found([], "IOBES", "strict") == set()


def all_rows(n_tokens: int, types: tuple[str, ...]) -> Iterator[Row]:
    """Yield every set of spans over some tokens."""
    if n_tokens == 0:
        yield []
    for length in range(1, n_tokens + 1):
        for kind in (*types, None):
            if kind is not None or length == 1:
                yield from ([(length, kind), *rest] for rest in all_rows(n_tokens - length, types))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_legal_rows_are_exactly_those_that_some_spans_are_written_as(scheme: str) -> None:
    tags = all_tags(("A", "B"), scheme)
    for length in (1, 2, 3):
        written = {tuple(tags_of(row, scheme)) for row in all_rows(length, ("A", "B"))}
        rows = list(product(tags, repeat=length))
        offsets = np.arange(len(rows) + 1) * length
        wrong = illegal_positions(pa.array([tag for row in rows for tag in row]), offsets, scheme)
        illegal = {rows[place] for place in (wrong // length).tolist()}
        assert {row for row in rows if row not in illegal} == written


@pytest.mark.parametrize("scheme", SCHEMES)
def test_illegal_tags_are_those_that_no_spans_have_beside_their_neighbours(scheme: str) -> None:
    legal = [["O", *tags_of(row, scheme), "end"] for row in all_rows(4, TYPES)]
    starts, pairs = {row[1] for row in legal}, {pair for row in legal for pair in pairwise(row[1:])}
    rng = np.random.default_rng(3)
    rows = random_rows(scheme, seed=4, n_rows=600)
    odd = ["X-PER", "B-", "", "O-PER-", "Q", "o", "Z-PER", "PER-Z"]
    for row in rows[::5]:
        for place in range(len(row)):
            if rng.random() < 0.1:
                row[place] = str(rng.choice(odd))
    tags, offsets = flat(rows)
    expected = []
    for offset, row in zip(offsets.tolist(), rows, strict=False):
        read = ["O" if tag in odd else tag for tag in row]
        for place, tag in enumerate(row):
            fits = (read[place - 1], read[place]) in pairs if place else read[0] in starts
            open_end = place == len(row) - 1 and (read[place], "end") not in pairs
            if tag in odd or not fits or open_end:
                expected.append(offset + place)
    assert len(expected) > 100
    assert illegal_positions(pa.array(tags, pa.string()), offsets, scheme).tolist() == expected


def test_illegal_of_nothing() -> None:
    assert illegal_positions(pa.array([], pa.string()), np.array([0, 0]), "IOBES").tolist() == []


def test_unknown_scheme() -> None:
    expected = (
        r"^span_scheme='BIOE'; use one of IOB1, IOB2, IOE1, IOE2, IOBES, BILOU, BMES, BMEWO, one of them with -suffix "
        r"\(PER-B\), or null \(configs/task/tag.yaml\)$"
    )
    with pytest.raises(HydromelError, match=expected):
        as_scheme("BIOE")
    with pytest.raises(HydromelError, match=expected):
        illegal_positions(pa.array(["O"]), np.array([0, 1]), "BIOE")


def test_all_tags() -> None:
    assert all_tags(["A"], "IOBES") == ["O", "B-A", "I-A", "E-A", "S-A"]
    assert all_tags(["A", "B"], "IOB1") == ["O", "B-A", "I-A", "B-B", "I-B"]


def test_fifty_thousand_sentences_take_no_call_for_each() -> None:
    rng = np.random.default_rng(0)
    names = all_tags(TYPES, "IOB2")
    lengths = rng.integers(1, 40, 50_000)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(0, len(names), offsets[-1])
    called = []
    sys.setprofile(lambda frame, event, argument: called.append(event))
    try:
        starts, _, _ = spans(ids, offsets, SpanTags.of(names, "IOB2"), "IOB2", "default")
    finally:
        sys.setprofile(None)
    assert len(starts) > 100_000
    assert 0 < len(called) < 10_000  # a million tokens
