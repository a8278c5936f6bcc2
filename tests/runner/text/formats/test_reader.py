"""Passages: every line once, in order, and no more text in memory than requested."""

from __future__ import annotations

import gzip
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from runner.text.formats import reader as module
from runner.text.formats.reader import check_encoding, grouped, passages, read_lines, single


@given(st.lists(st.sampled_from(["", "a", "bc d", "efg"])), st.integers(1, 12))
def test_every_line_is_in_one_passage_and_sentences_are_whole(lines: list[str], characters: int) -> None:
    actual = list(passages(grouped(lines, "x", lambda line: not line), "x", characters))
    assert [line for item in actual for line in item.lines] == lines
    assert all(item.lines[-1] == "" for item in actual[:-1])
    firsts = itertools.accumulate((len(item.lines) for item in actual), initial=1)
    assert [item.first for item in actual] == list(firsts)[:-1]
    for item in actual:  # as short as can be
        ends = [place for place, line in enumerate(item.lines[:-1]) if not line]
        assert all(sum(len(line) + 1 for line in item.lines[: end + 1]) < characters for end in ends)


def test_reading_is_lazy() -> None:
    lines = map(str, itertools.count())
    taken = itertools.islice(passages(single(lines), "x", 10), 3)
    assert [item.lines[0] for item in taken] == ["0", "5", "10"]
    assert int(next(lines)) < 20


def test_a_passage_that_cannot_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHARACTERS", 100)
    with pytest.raises(HydromelError, match=r"x:2: no blank line in the 10\d characters"):
        list(grouped(["", *["a"] * 99], "x", lambda line: not line))


TEXT = "\ufeffé\r\nb\u2028c\n\nd"  # U+2028 ends no line


@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_those_of_the_text(packed: bool) -> None:
    content = gzip.compress(TEXT.encode()) if packed else TEXT.encode()
    file = io.BufferedReader(io.BytesIO(content))
    assert list(read_lines(file, "x", "utf-8")) == ["é", "b\u2028c", "", "d"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends(end: str, last: bool) -> None:
    text = f"a{end}{end}b" + end * last
    assert list(read_lines(io.BytesIO(text.encode()), "x", "utf-8")) == ["a", "", "b"]


def test_a_carriage_return_within_a_line_ends_none() -> None:
    assert list(read_lines(io.BytesIO(b"a\rb\nc"), "x", "utf-8")) == ["a\rb", "c"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\nb\xff\n", r"x:2: byte 2 of the line \(0xff\) is not utf-8.*--encoding"),
        (gzip.compress(b"a\n" * 99, mtime=0)[:-9], "x: cannot be read"),
        (b"a\n" + b"b" * 100, "x:2: the line has more than 50 bytes"),
    ],
    ids=["encoding", "gzip", "length"],
)
def test_malformed_text_is_reported_with_its_line(
    content: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE_BYTES", 50)
    with pytest.raises(HydromelError, match=expected):
        list(read_lines(io.BufferedReader(io.BytesIO(content)), "x", "utf-8"))


def test_encodings() -> None:
    check_encoding("iso-8859-1")
    for encoding in ("utf-16", "klingon", "hex", "punycode", "undefined", "utf-7"):
        with pytest.raises(HydromelError, match=f"--encoding {encoding}"):
            check_encoding(encoding)
