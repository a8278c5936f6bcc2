"""The span scheme that is worked out from tags, and the check of tags against a scheme."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from tasks.spans.finding import Tagging, TagRules, check_tags, find_scheme
from tasks.spans.table import SCHEMES, Scheme
from tests.helpers.span_tags import Row, spans_of, tags_of


def tagging(*rows: str) -> Tagging:
    """Return the tags of rows such as `O B-X`; position n is called `token n`, from 0."""
    lists = [row.split() for row in rows]
    offsets = np.cumsum([0, *map(len, lists)])
    return Tagging(pa.array([tag for row in lists for tag in row], pa.string()), offsets, lambda n: f"token {n}")


def reading(rows: list[list[str]], scheme: Scheme) -> Any:
    return tagging(*map(" ".join, rows)).spans(scheme)


@given(
    scheme=st.sampled_from(list(SCHEMES)),
    rows=st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, "LOC", "PER"])), min_size=1, max_size=5),
        min_size=1,
        max_size=5,
    ),
)
@settings(max_examples=300, deadline=None)
def test_the_scheme_found_reads_the_spans_that_were_written(scheme: Scheme, rows: list[Row]) -> None:
    assume(any(kind for row in rows for _, kind in row))
    written = [tags_of(row, scheme) for row in rows]
    found = find_scheme([tagging(*map(" ".join, written))])
    assert found is not None
    assert reading(written, found) == reading(written, scheme)
    starts, ends, types = reading(written, found)
    offsets = np.cumsum([0, *map(len, written)])
    expected = [
        (offset + a, offset + b, kind)
        for offset, row in zip(offsets, rows, strict=False)
        for a, b, kind in spans_of(row)
    ]
    assert list(zip(starts, ends, types, strict=True)) == expected


@pytest.mark.parametrize(
    ("rows", "scheme"),
    [
        (["O B-X I-X", "B-Y"], "IOB2"),
        (["O B-X"], "IOB2"),  # single tokens only
        (["I-X I-X", "O I-Y B-Y"], "IOB1"),
        (["O I-X I-X", "I-Y"], "IOB1"),  # IOE1 reads the same spans
        (["I-X E-X I-X O"], "IOE1"),
        (["O E-X", "I-Y I-Y E-Y"], "IOE2"),
        (["O S-X B-Y I-Y E-Y"], "IOBES"),
        (["O S-X"], "IOBES"),  # and BMES
        (["O B-X E-X S-X"], "IOBES"),
        (["U-X", "O B-Y I-Y L-Y"], "BILOU"),
        (["O U-X"], "BILOU"),
        (["B-X M-X E-X S-X"], "BMES"),
        (["O B-X M-X E-X W-X"], "BMEWO"),
        (["O X-B X-I", "Y-B"], "IOB2-suffix"),
        (["O X-U Y-B Y-L"], "BILOU-suffix"),
        (["O a-b-S"], "IOBES-suffix"),
        (["B E S B M E"], "BMES"),  # word segmentation: letters alone
        (["B I O O"], "IOB2"),
        # plain tags
        (["NOUN VERB O", "DET"], None),
        (["O O", "O"], None),
        (["O S O"], None),  # one letter alone may be any tag
        (["B I X"], None),
        (["O B O I"], None),  # letters alone, legal in no scheme
        (["N-S V-M ADJ-S"], None),  # a suffix without O
        (["NN -LRB- S-x JJ"], None),
        (["_"], None),
    ],
)
def test_by_hand(rows: list[str], scheme: str | None) -> None:
    assert find_scheme([tagging(*rows)]) == scheme


def test_tags_that_are_no_targets_stand_between_no_others(caplog: pytest.LogCaptureFixture) -> None:
    tags, offsets = pa.array([None, "B-X", None, "I-X", None, "I-X"], pa.string()), np.array([0, 4, 6])
    rows = Tagging.of(tags, offsets, lambda n: f"token {n}")
    assert (rows.tags.to_pylist(), rows.offsets.tolist()) == (["B-X", "I-X", "I-X"], [0, 2, 3])
    with pytest.raises(HydromelError, match=r"^token 5: tag 'I-X' at the start of a sentence is illegal in IOB2 "):
        check_tags(tags, offsets, TagRules("IOB2", True), lambda n: f"token {n}")
    check_tags(tags.slice(0, 4), np.array([0, 4]), TagRules("IOB2", True), lambda n: f"token {n}")


def test_the_scheme_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        find_scheme([tagging("O B-X I-X", "B-Y")])
        find_scheme([tagging("O S-X")])
        find_scheme([tagging("DET NOUN")])
    assert caplog.messages == [
        "span_scheme=IOB2, worked out from the tags of train: 2 spans (X, Y)",
        "span_scheme=IOBES, worked out from the tags of train: 1 spans (X); BMES would read the same spans",
        "span_scheme=null: the tags of train (DET, NOUN) are plain tags, not those of spans",
    ]


def test_schemes_that_read_different_spans_are_asked_for() -> None:
    with pytest.raises(HydromelError, match=r"^token 0: .* legal in IOB2 and in IOE2-suffix, but mean different spans"):
        find_scheme([tagging("O B-E I-E")])


def test_tags_that_look_like_spans_but_fit_no_scheme_are_asked_for() -> None:
    with pytest.raises(HydromelError) as error:
        find_scheme([tagging("O B-X I-X", "O I-X", "B-X B-X")])
    assert str(error.value) == (
        "token 4: tag 'I-X' after 'O' is illegal in IOB2, and no span scheme allows all tags of train: IOB2 is broken "
        "by 1 of 7, IOB1 by 2, IOBES by 3; correct them, or keep them with dataset.span_scheme=IOB2 "
        "dataset.strict_tags=false; dataset.span_scheme=null keeps plain tags"
    )
    with pytest.raises(HydromelError, match=r"^token 1: tag 'X-PER' and the other tags .*; dataset.span_scheme=null "):
        find_scheme([tagging("O X-PER B-LOC I-LOC")])
    with pytest.raises(HydromelError, match=r"^token 4: tag 'L-X' .*: IOBES has O, B-X, S-X, but not L-X; correct"):
        find_scheme([tagging("O B-X", "S-X B-X L-X")])
    with pytest.raises(
        HydromelError,
        match=r"^token 2: tag '_' .*: IOB2 has O, B-X, but not _; .* that are not tags with .task.ignore=\[_\]. *",
    ):
        find_scheme([tagging("O B-X _")])


@pytest.mark.parametrize("rows", ["O B_PER I_PER", "O O b-per i-per", "o B.x L.x", "B:X O I:X"])
def test_tags_with_other_marks_or_small_letters_are_no_plain_tags_silently(rows: str) -> None:
    with pytest.raises(
        HydromelError, match=r"^token \d: tag '.*' looks like that of a span, but all .*span_scheme=null$"
    ):
        find_scheme([tagging(rows)])
    for plain in ("O B_PER", "B_PER I_PER", "O B_PER I_PER N"):  # too little to tell
        assert find_scheme([tagging(plain)]) is None


def checked(rows: Tagging, scheme: Scheme, strict: bool) -> None:
    check_tags(rows.tags, rows.offsets, TagRules(scheme, strict), rows.at)


@pytest.mark.parametrize("strict", [True, False])
def test_tags_of_another_scheme_are_refused_with_that_scheme(strict: bool) -> None:
    message = (
        "token 1: tag 'U-X' after 'O' is illegal in IOB2 (illegal tags in the file: 1); all tags of the file are legal "
        "in BILOU: set dataset.span_scheme=BILOU"
    )
    with pytest.raises(HydromelError) as error:
        checked(tagging("O U-X"), "IOB2", strict)
    assert str(error.value) == message


def test_letters_of_no_common_scheme_are_refused_even_if_illegal_tags_are_kept() -> None:
    with pytest.raises(HydromelError) as error:
        checked(tagging("I-X O E-X B-X"), "IOB2", False)
    assert str(error.value) == (
        "token 2: tag 'E-X' after 'O' is illegal in IOB2 (illegal tags in the file: 2); set the file's scheme with "
        "dataset.span_scheme"
    )


def test_the_advice_for_tags_that_are_none_leaves_them_out() -> None:
    advice = r"values that are not tags with 'task.ignore=\[_\]', or keep such tags with dataset.strict_tags=false$"
    with pytest.raises(HydromelError, match=advice):
        checked(tagging("O B-X _ O"), "IOB2", True)


def test_ignored_tags_are_legal_in_any_scheme() -> None:
    rows = tagging("_ B-X _ I-X 3")
    check_tags(rows.tags, rows.offsets, TagRules("IOB2", True, ("_", 3)), rows.at)
    with pytest.raises(HydromelError, match="token 4: tag '3' after 'I-X' is illegal in IOB2"):
        check_tags(rows.tags, rows.offsets, TagRules("IOB2", True, ("_",)), rows.at)


def test_what_becomes_of_kept_tags_is_told(caplog: pytest.LogCaptureFixture) -> None:
    checked(tagging("O I-X", "X X B-X"), "IOB2", False)
    checked(tagging("S-X B-X", "O I-X"), "IOBES", False)
    assert caplog.messages == [
        "token 1: tag 'I-X' after 'O' is illegal in IOB2; 3 illegal tags are kept; 2 of them are not tags of spans (X) "
        "and count as O, unless task.ignore names them",
        "token 1: tag 'B-X' after 'S-X' is illegal in IOBES; 2 illegal tags are kept; 1 of 3 spans are whole, and only "
        "these count in IOBES",
    ]
