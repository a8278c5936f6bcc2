"""Conversion between schemes: it is reversible, and every scheme encodes the same spans."""

from __future__ import annotations

from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from tasks.datasets.conll import Cells
from tasks.datasets.files import read_text
from tasks.spans.schemes import Conversion
from tasks.spans.tags import ALLOWED, all_tags, illegal_positions
from tests.helpers.published import DATA

SCHEMES = tuple(ALLOWED)
TYPES = ("LOC", "PER", "a-b")

Row = list[tuple[int, str | None]]  # a row as pieces: (number of tokens, type or None)
rows_of_pieces = st.lists(
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, *TYPES])), max_size=6), max_size=6
)


def tags_of(row: Row, scheme: str) -> list[str]:
    """Encode spans by the definition of each scheme, piece by piece."""
    tags: list[str] = []
    before = None
    for length, kind in row:
        if kind is None:
            tags += ["O"] * length
        elif scheme == "IOB1":
            tags += [f"{'B' if before == kind else 'I'}-{kind}", *[f"I-{kind}"] * (length - 1)]
        elif scheme == "IOB2":
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1)]
        elif length == 1:
            tags.append(f"S-{kind}")
        else:
            tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"E-{kind}"]
        before = kind
    return tags


def converted(rows: list[list[str]], vocabulary: list[str], types: tuple[str, ...], scheme: str) -> list[list[str]]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    ids = np.array([vocabulary.index(tag) for row in rows for tag in row], dtype=np.int64)
    names = all_tags(types, scheme)
    flat = [names[item] for item in Conversion.of(vocabulary, scheme)(ids, offsets)]
    assert illegal_positions(pa.array(flat, pa.string()), offsets, scheme).tolist() == []
    return [flat[start:end] for start, end in pairwise(offsets)]


@pytest.mark.parametrize(("source", "target"), [*permutations(SCHEMES, 2), *((item, item) for item in SCHEMES)])
@given(rows=rows_of_pieces)
@settings(max_examples=60, deadline=None)
def test_each_scheme_becomes_each_other(source: str, target: str, rows: list[Row]) -> None:
    old = [tags_of(row, source) for row in rows]
    new = [tags_of(row, target) for row in rows]
    assert converted(old, all_tags(TYPES, source), TYPES, target) == new


@pytest.mark.parametrize("target", SCHEMES)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_tags_become_legal_ones_of_the_spans_that_conlleval_sees(target: str, data: st.DataObject) -> None:
    vocabulary = [*all_tags(TYPES, "IOBES"), "X-PER", "B-", ""]
    rows = data.draw(st.lists(st.lists(st.sampled_from(vocabulary), max_size=8), max_size=5))
    new = converted(rows, vocabulary, TYPES, target)
    for old, row in zip(rows, new, strict=True):
        read = ["O" if tag in ("X-PER", "B-", "") else tag for tag in old]
        assert get_entities(row) == get_entities(read)


def test_by_hand() -> None:
    iob2 = [["B-PER", "I-PER", "B-PER", "B-LOC", "O"], [], ["B-LOC"], ["B-LOC", "I-LOC", "I-LOC"]]
    names = all_tags(("LOC", "PER"), "IOB2")
    assert converted(iob2, names, ("LOC", "PER"), "IOB1") == [
        ["I-PER", "I-PER", "B-PER", "I-LOC", "O"],
        [],
        ["I-LOC"],
        ["I-LOC", "I-LOC", "I-LOC"],
    ]
    assert converted(iob2, names, ("LOC", "PER"), "IOBES") == [
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
            there = Conversion.of(all_tags(types, "IOB2"), first)(ids, offsets)
            for second in SCHEMES:
                further = Conversion.of(all_tags(types, first), second)(there, offsets)
                back = Conversion.of(all_tags(types, second), "IOB2")(further, offsets)
                np.testing.assert_array_equal(back, ids)
