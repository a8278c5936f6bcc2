"""Spans, compared with seqeval and with direct implementations of the definitions."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB1, IOB2, IOBES, Entities

from runner.common.errors import HydromelError
from tasks.spans.tags import ALLOWED, SpanTags, all_tags, as_scheme, illegal_positions, spans

SEQEVAL = {"IOB1": IOB1, "IOB2": IOB2, "IOBES": IOBES}
SCHEMES = tuple(SEQEVAL)
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
    said = SpanTags.of(names)
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
@pytest.mark.parametrize("scheme", SCHEMES)
def test_spans_are_those_of_seqeval(scheme: str, mode: str) -> None:
    rows = random_rows(scheme, seed=7)
    expected = by_seqeval(rows, scheme, mode)
    assert len(expected) > 1000
    assert found(rows, scheme, mode) == expected


def test_default_reads_any_prefix_whatever_the_scheme() -> None:
    rows = random_rows("IOBES", seed=8)
    for scheme in SCHEMES:
        assert found(rows, scheme, "default") == by_seqeval(rows, "IOBES", "default")


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


def slow_illegal(row: list[str], scheme: str) -> Iterator[int]:
    """Find illegal tags by the definition, tag by tag."""
    prefix, kind = "O", ""
    for position, tag in enumerate(row):
        before, kind_before = prefix, kind
        prefix, _, kind = tag.partition("-")
        well_formed = tag == "O" or (prefix in [*ALLOWED[scheme]] and kind != "")
        if not well_formed:
            prefix, kind = "O", ""
        same = before in ("B", "I") and kind_before == kind
        if scheme == "IOB1":
            fits = prefix != "B" or same
        elif scheme == "IOB2":
            fits = prefix != "I" or same
        elif before in ("B", "I"):
            fits = prefix in ("I", "E") and same
        else:
            fits = prefix not in ("I", "E")
        unfinished = scheme == "IOBES" and position == len(row) - 1 and prefix in ("B", "I")
        if not well_formed or not fits or unfinished:
            yield position


@pytest.mark.parametrize("scheme", SCHEMES)
def test_illegal_tags_are_those_of_the_definition(scheme: str) -> None:
    rng = np.random.default_rng(3)
    rows = random_rows(scheme, seed=4)
    for row in rows[::5]:
        for place in range(len(row)):
            if rng.random() < 0.1:
                row[place] = str(rng.choice(["X-PER", "B-", "I", "", "O-PER", "E-PER", "S-PER", "o"]))
    tags, offsets = flat(rows)
    expected = [offsets[number] + place for number, row in enumerate(rows) for place in slow_illegal(row, scheme)]
    assert len(expected) > 500
    assert illegal_positions(pa.array(tags, pa.string()), offsets, scheme).tolist() == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_tag_of_a_legal_file_is_illegal(scheme: str) -> None:
    rows = {
        "IOB1": [["I-PER", "I-PER", "B-PER", "I-LOC", "O"], ["I-LOC", "B-LOC"]],
        "IOB2": [["B-PER", "I-PER", "B-PER", "B-LOC", "O"], ["B-LOC", "B-LOC"]],
        "IOBES": [["B-PER", "E-PER", "S-PER", "B-LOC", "I-LOC", "E-LOC", "O"], [], ["S-LOC"]],
    }[scheme]
    tags, offsets = flat(rows)
    assert illegal_positions(pa.array(tags), offsets, scheme).tolist() == []


def test_illegal_of_nothing() -> None:
    assert illegal_positions(pa.array([], pa.string()), np.array([0, 0]), "IOBES").tolist() == []


def test_unknown_scheme() -> None:
    expected = r"^span_scheme='BIOE'; use one of IOB1, IOB2, IOBES or null \(configs/task/tag.yaml\)$"
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
        starts, _, _ = spans(ids, offsets, SpanTags.of(names), "IOB2", "default")
    finally:
        sys.setprofile(None)
    assert len(starts) > 100_000
    assert 0 < len(called) < 10_000  # a million tokens
