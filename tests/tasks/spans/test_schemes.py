"""Conversion between schemes: it is reversible, and every scheme encodes the same spans."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from tasks.datasets.conll import Cells
from tasks.datasets.files import read_text
from tasks.spans.schemes import Conversion
from tasks.spans.table import SCHEMES, Scheme, all_tags
from tasks.spans.tags import SpanTags, illegal_positions, spans
from tests.helpers.published import DATA
from tests.helpers.span_tags import Row, spans_of, tags_of

TYPES = ("LOC", "PER", "a-b")

rows_of_pieces = st.lists(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, *TYPES])), max_size=6), max_size=6
)


def converted(
    rows: list[list[str]], vocabulary: list[str], types: tuple[str, ...], source: Scheme, scheme: Scheme
) -> list[list[str]]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    ids = np.array([vocabulary.index(tag) for row in rows for tag in row], dtype=np.int64)
    names = all_tags(types, scheme)
    flat = [names[item] for item in Conversion.of(vocabulary, source, scheme)(ids, offsets)]
    assert illegal_positions(pa.array(flat, pa.string()), offsets, scheme).tolist() == []
    return [flat[start:end] for start, end in pairwise(offsets)]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_each_scheme_becomes_each_other(data: st.DataObject) -> None:
    source, target = data.draw(st.sampled_from(list(product(SCHEMES, repeat=2))))
    rows: list[Row] = data.draw(rows_of_pieces)
    old, new = ([tags_of(row, scheme) for row in rows] for scheme in (source, target))
    assert converted(old, all_tags(TYPES, source), TYPES, source, target) == new


@pytest.mark.parametrize("mode", ["default", "strict"])
@pytest.mark.parametrize("scheme", SCHEMES)
@given(rows=rows_of_pieces)
@settings(max_examples=30, deadline=None)
def test_the_spans_of_legal_tags_are_those_that_were_written(scheme: Scheme, mode: Any, rows: list[Row]) -> None:
    names, flat = all_tags(TYPES, scheme), [tag for row in rows for tag in tags_of(row, scheme)]
    offsets = np.cumsum([0, *(sum(length for length, _ in row) for row in rows)])
    ids = np.array([names.index(tag) for tag in flat], dtype=np.int64)
    starts, ends, kinds = spans(ids, offsets, SpanTags.of(names, scheme), scheme, mode)
    expected = [
        (offset + start, offset + end, TYPES.index(kind))
        for offset, row in zip(offsets, rows, strict=False)
        for start, end, kind in spans_of(row)
    ]
    assert list(zip(starts, ends, kinds, strict=True)) == expected


def test_letters_alone_are_spans_of_one_type() -> None:
    words = [["B", "E", "S", "B", "M", "E"]]
    assert converted(words, ["B", "M", "E", "S"], ("",), "BMES", "IOB2") == [["B", "I", "B", "B", "I", "I"]]
    assert converted([["B", "I", "O"]], ["B", "I", "O"], ("",), "IOB2", "BMEWO-suffix") == [["B", "E", "O"]]


@pytest.mark.parametrize("target", ["IOB1", "IOBES", "BILOU-suffix"])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_tags_become_legal_ones_of_the_spans_that_conlleval_sees(target: Scheme, data: st.DataObject) -> None:
    vocabulary = [*all_tags(TYPES, "IOBES"), "X-PER", "B-", ""]
    rows = data.draw(st.lists(st.lists(st.sampled_from(vocabulary), max_size=8), max_size=5))
    new = converted(rows, vocabulary, TYPES, "IOBES", target)
    for old, row in zip(rows, new, strict=True):
        read = ["O" if tag in ("X-PER", "B-", "") else tag for tag in old]
        assert get_entities(converted([row], all_tags(TYPES, target), TYPES, target, "IOB2")[0]) == get_entities(read)


def test_by_hand() -> None:
    iob2 = [["B-PER", "I-PER", "B-PER", "B-LOC", "O"], [], ["B-LOC"], ["B-LOC", "I-LOC", "I-LOC"]]
    names = all_tags(("LOC", "PER"), "IOB2")
    assert converted(iob2, names, ("LOC", "PER"), "IOB2", "IOB1") == [
        ["I-PER", "I-PER", "B-PER", "I-LOC", "O"],
        [],
        ["I-LOC"],
        ["I-LOC", "I-LOC", "I-LOC"],
    ]
    assert converted(iob2, names, ("LOC", "PER"), "IOB2", "IOBES") == [
        ["B-PER", "E-PER", "S-PER", "S-LOC", "O"],
        [],
        ["S-LOC"],
        ["B-LOC", "I-LOC", "E-LOC"],
    ]


@pytest.mark.data
def test_wnut17_there_and_back() -> None:
    files = sorted((Path(DATA) / "tagging" / "wnut17").iterdir())
    assert len(files) == 3
    for path in files:
        cells = Cells.of(read_text(path, "utf-8"), "tab", None, skip_docstart=False)
        tags, offsets = cells.column(1).to_pylist(), cells.offsets()
        types = tuple(sorted({tag[2:] for tag in tags} - {""}))
        ids = np.array([all_tags(types, "IOB2").index(tag) for tag in tags])
        for first in SCHEMES:
            there = Conversion.of(all_tags(types, "IOB2"), "IOB2", first)(ids, offsets)
            back = Conversion.of(all_tags(types, first), first, "IOB2")(there, offsets)
            np.testing.assert_array_equal(back, ids)
