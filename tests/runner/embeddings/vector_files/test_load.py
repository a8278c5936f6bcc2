"""Text and binary vector files: the vectors that are read, and the messages for malformed files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from runner.embeddings.vector_files import table as vector_table
from runner.embeddings.vector_files import text as vector_text
from runner.embeddings.vector_files.load import VectorFile, fingerprint
from runner.embeddings.vector_files.table import FoundVectors
from runner.text.normal_forms import normal_form
from tests.helpers.published import DATA

ROWS = {"the": [0.5, -1.25, 3.0], "Ann": [1e-3, 2.0, -0.0625], "ann": [9.0, 8.0, 7.0], "é": [-1.0, 0.0, 1.0]}


def text_of(rows: dict[str, list[float]], end: str = "\n") -> str:
    return "".join(f"{word} {' '.join(map(str, row))}{end}" for word, row in rows.items())


def binary_of(rows: dict[str, list[float]], end: bytes = b"") -> bytes:
    size = len(next(iter(rows.values())))
    body = b"".join(word.encode() + b" " + struct.pack(f"<{size}f", *row) + end for word, row in rows.items())
    return b"%d %d\n" % (len(rows), size) + body


FILES = {
    "GloVe text": text_of(ROWS).encode(),
    "GloVe text, no last line end": text_of(ROWS).encode().rstrip(),
    "GloVe text, CRLF": text_of(ROWS, "\r\n").encode(),
    "GloVe text, tabs": text_of(ROWS).replace(" ", "\t").encode(),
    "GloVe text, BOM": b"\xef\xbb\xbf" + text_of(ROWS).encode(),
    "GloVe text, empty lines": text_of(ROWS, "\n \n").encode(),
    "word2vec text": b"4 3\n" + text_of(ROWS).encode(),
    "word2vec text, spaces at ends": b"4 3 \n" + text_of(ROWS, " \n").encode(),
    "word2vec text, BOM": b"\xef\xbb\xbf4 3\n" + text_of(ROWS).encode(),
    "word2vec binary": binary_of(ROWS),
    "word2vec binary, line ends": binary_of(ROWS, b"\n"),
}


def found_in(path: Path, content: bytes, *words: str, lowercase: bool = False) -> FoundVectors:
    path.write_bytes(content)
    return VectorFile(path, "none").find(words, lowercase)


def vector(result: FoundVectors, place: int) -> list[float] | None:
    row = result.row_of_word[place]
    return None if row < 0 else result.table[row].tolist()


@pytest.mark.parametrize("name", FILES)
def test_the_format_is_detected_by_content(name: str, tmp_path: Path) -> None:
    words = ["é", "lacks", "Ann", "the"]
    actual = found_in(tmp_path / "vectors", FILES[name], *words)
    assert actual.format == name.partition(",")[0]
    assert actual.words_in_file == 4
    assert actual.table.dtype == np.float32
    assert len(actual.table) == 3  # rows of words that nobody asked for are not kept
    for place, word in enumerate(words):
        want = ROWS.get(word)
        assert vector(actual, place) == (None if want is None else np.float32(want).tolist())


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_a_repeated_query_returns_the_same_vectors(name: str, lowercase: bool, tmp_path: Path) -> None:
    """Query the words of the file mixed with longer and shorter ones, in any order."""
    asked = [["é", "the", "th", "thee", "Ann"], [], ["ANN", "nn", "ann", ""], ["THE"], ["unseen"], ["é", "the"]]
    slow = [found_in(tmp_path / "v", FILES[name], *words, lowercase=lowercase) for words in asked]
    opened = VectorFile(tmp_path / "v")
    for words, actual in zip(asked, slow, strict=True):
        again = opened.find(words, lowercase)
        places = range(len(words))
        assert [vector(again, place) for place in places] == [vector(actual, place) for place in places]
        assert len(again.table) == len(actual.table)


def test_a_repeated_query_reports_invalid_lines(tmp_path: Path) -> None:
    """Errors name the line, as in the first read, for words that were not parsed before."""
    (tmp_path / "v").write_text("a 1.0\n\nb x\nc nan\nd 1.0\nd 2.0", encoding="utf-8")
    opened = VectorFile(tmp_path / "v")
    assert opened.find(["a"], False).table.tolist() == [[1.0]]
    wrong = {"b": "v:3: 'x' is not a number", "c": "v:4: the vector of 'c' contains nan"}
    for word, line in wrong.items():
        with pytest.raises(HydromelError, match=line):
            opened.find(["a", word], False)


@pytest.mark.parametrize("between", [0, 50_000])
def test_the_first_of_duplicate_words_is_used(tmp_path: Path, between: int) -> None:
    lines = ["the 1.0 2.0", *(f"w{i} 5.0 5.0" for i in range(between)), "the 3.0 4.0", "Ann 6.0 7.0", "the 8.0 9.0"]
    actual = found_in(tmp_path / "v", "\n".join(lines).encode(), "Ann", "the")
    assert [vector(actual, place) for place in range(2)] == [[6.0, 7.0], [1.0, 2.0]]
    assert actual.duplicates == 2


@pytest.mark.parametrize("content", ["GloVe text", "word2vec binary"])
def test_words_are_compared_in_their_normal_form(content: str, tmp_path: Path) -> None:
    """Composed, decomposed, a compatibility form: é, ﬁ; the first of equal words is used."""
    words, values = ["e\u0301", "\u00e9", "\ufb01n", "fin", "plain"], [[float(n), 9.0] for n in range(1, 6)]
    if content == "GloVe text":
        lines = [f"{word} {first} {second}" for word, (first, second) in zip(words, values, strict=True)]
        data = "\n".join(lines).encode()
    else:
        rows = (word.encode() + b" " + np.float32(row).tobytes() for word, row in zip(words, values, strict=True))
        data = b"5 2\n" + b"".join(rows)
    (tmp_path / "v").write_bytes(data)
    asked = {"NFC": ["\u00e9", "\ufb01n", "fin"], "NFKC": ["\u00e9", "fin"], "none": words}
    expected = {"NFC": ([1.0, 3.0, 4.0], 1), "NFKC": ([1.0, 3.0], 2), "none": ([1.0, 2.0, 3.0, 4.0, 5.0], 0)}
    for form, some in asked.items():
        actual = VectorFile(tmp_path / "v", form).find(some, False)  # type: ignore[arg-type]
        assert ([actual.table[row][0] for row in actual.row_of_word], actual.duplicates) == expected[form]


def test_lower_case_of_words_agrees_with_the_vocabulary(tmp_path: Path) -> None:
    words = ["ΟΔΟΣ", "İzmir", "STRASSE", "É", "E\u0301"]
    text = "".join(f"{word.lower()} {place}.0\n" for place, word in enumerate(words))
    (tmp_path / "v").write_text(text, encoding="utf-8")
    file = VectorFile(tmp_path / "v", "NFC")
    normal = [normal_form(word, "NFC", lowercase=False) for word in words]
    actual = file.find(normal, True)
    assert [actual.table[row][0] for row in actual.row_of_word] == [0.0, 1.0, 2.0, 3.0, 3.0]
    lowered = [normal_form(word, "NFC", lowercase=True) for word in words]
    again = file.find(lowered, False)
    assert [again.table[row][0] for row in again.row_of_word] == [0.0, 1.0, 2.0, 3.0, 3.0]


def test_words_with_equal_hashes_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "v").write_bytes(FILES["GloVe text"])
    monkeypatch.setattr(vector_table, "_hashes", lambda words: np.zeros(len(words), dtype=np.int64))
    actual = VectorFile(tmp_path / "v").find(["é", "an", "the", "annn"], False)
    assert [vector(actual, place) for place in range(4)] == [ROWS["é"], None, ROWS["the"], None]


@pytest.mark.parametrize("name", ["GloVe text", "word2vec binary"])
def test_lower_case_is_the_fallback(name: str, tmp_path: Path) -> None:
    words = ["The", "Ann", "ANN", "ann", "É", "Lacks"]
    exact = found_in(tmp_path / "vectors", FILES[name], *words)
    assert [row >= 0 for row in exact.row_of_word] == [False, True, False, True, False, False]
    lowered = found_in(tmp_path / "vectors", FILES[name], *words, lowercase=True)
    got = [vector(lowered, place) for place in range(6)]
    assert got[:5] == [np.float32(ROWS[word]).tolist() for word in ("the", "Ann", "ann", "ann", "é")]
    assert lowered.row_of_word[2] == lowered.row_of_word[3]  # one row, so that training moves both
    assert (got[5], len(lowered.table)) == (None, 4)
    alone = found_in(tmp_path / "vectors", FILES[name], "Ann", lowercase=True)
    assert len(alone.table) == 1  # 'ann' was looked for, and is not needed


def test_words_may_hold_spaces_and_those_of_unicode(tmp_path: Path) -> None:
    content = (
        "a 1.0 2.0\n. . . 3.0 4.0\nat me@x.org 5.0 6.0\nb\u00a0c 7.0 8.0\n\u2028 9.0 1.5\n\x1c 2.5 3.5\n1 2 4.5 5.5\n"
    )
    actual = found_in(
        tmp_path / "v", content.encode(), ". . .", "at me@x.org", "b\u00a0c", "\u2028", "\x1c", "1 2", ".", "at"
    )
    assert [vector(actual, place) for place in range(6)] == [[3, 4], [5, 6], [7, 8], [9, 1.5], [2.5, 3.5], [4.5, 5.5]]
    assert actual.row_of_word[6:].tolist() == [-1, -1]


def test_a_word_in_invalid_utf8_does_not_affect_others(tmp_path: Path) -> None:
    actual = found_in(tmp_path / "v", b"a 1.0 2.0\n\xff\xfe 3.0 4.0\nb 5.0 6.0\n", "a", "b")
    assert actual.table.tolist() == [[1, 2], [5, 6]]


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_characters=" \t\n\v\f\r"), min_size=1, max_size=5)


@given(st.dictionaries(words, st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=8), st.integers(1, 90))
def test_the_block_size_does_not_change_the_result(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[float]], block: int
) -> None:
    """The block size does not matter, and numbers are parsed as in Python."""
    path = tmp_path_factory.getbasetemp() / "blocks.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_text, "_BLOCK_BYTES", block)
        actual = found_in(path, f"{len(rows)} 3\n{text_of(rows)}".encode(), *rows)
    assert actual.table[actual.row_of_word].tolist() == np.float32(list(rows.values())).tolist()


@given(st.text("0123456789.-+eEnaif", max_size=7))
@example("+1")
@example("-inf")
@example("Infinity")
@example("NaN")
@example("1e+5")
def test_is_number_agrees_with_arrow(field: str) -> None:
    try:
        pa.array([field]).cast(pa.float32())
        read = True
    except pa.ArrowInvalid:
        read = False
    assert vector_text.is_number(field.encode()) == read


WRONG = {
    "GloVe text: a row too short": ("the 1.0 2.0\nAnn 1.0\n", r"v:2: 1 numbers; line 1 has 2"),
    "GloVe text: a row too long": ("the 1.0 2.0\nx 1.0 2.0\nAnn 1.0 2.0 3.0\n", r"v:3: 3 numbers; line 1 has 2"),
    "word2vec text: another size": ("2 3\nthe 1.0 2.0\nAnn 1.0 2.0\n", r"v:2: 2 numbers; the first line says 3"),
    "word2vec text: cut": ("3 2\nthe 1.0 2.0\nAnn 1.0 2.0\n", r"v:1: the first line says 3 words, but the file has 2"),
    "word2vec text: cut in a row": ("3 2\nthe 1.0 2.0\nAnn 1.", r"v:3: 1 numbers; the first line says 2"),
    "not a number": ("the 1.0 2.0\nAnn 1.0 x2\n", r"v:2: 'x2' is not a number"),
    "nan": ("the 1.0 2.0\nAnn nan 2.0\n", r"v:2: the vector of 'Ann' contains nan"),
    "too large": ("the 1.0 2.0\nAnn 1.0 1e99\n", r"v:2: the vector of 'Ann' contains inf"),
    "empty": ("", r"v: the file is empty"),
    "prose": (
        "It was a bright cold day in April\n",
        r"v:1: 'It was .* April' is not a word followed by numbers; use GloVe",
    ),
    "spaces": ("  \n \n", r"v:1: '' is not a word followed by numbers"),
    "no words": ("0 3\n", r"v:1: the first line says 0 words of size 3; both must be above 0"),
    "no size": ("3 0\na\n", r"v:1: the first line says 3 words of size 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_files_raise_one_line_errors(name: str, tmp_path: Path) -> None:
    content, message = WRONG[name]
    with pytest.raises(HydromelError, match=f"^[^\n]*{message}[^\n]*$"):
        found_in(tmp_path / "v", content.encode(), "the", "Ann")


def test_binary_files_that_are_wrong(tmp_path: Path) -> None:
    whole = binary_of(ROWS)
    for end in range(5, len(whole)):
        with pytest.raises(
            HydromelError, match=r"^[^\n]*v: the file ends within word \d of 4 [^\n]*$|^[^\n]*v:\d: \d numbers"
        ):
            found_in(tmp_path / "v", whole[:end], "the")
    with pytest.raises(HydromelError, match=r"v: 3 bytes follow the last of 4 words; the first line is wrong"):
        found_in(tmp_path / "v", whole + b"abc", "the")
    twice = binary_of(ROWS | {"x": [1.0, 2.0, 3.0]}).replace(b"x ", b"the ")
    assert vector(found_in(tmp_path / "v", twice, "the"), 0) == np.float32(ROWS["the"]).tolist()
    with pytest.raises(HydromelError, match=r"v, word 2: the vector of 'Ann' contains nan"):
        found_in(tmp_path / "v", binary_of(ROWS | {"Ann": [1.0, float("nan"), 0.0]}), "Ann")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HydromelError, match=r"none\.txt: cannot be read \(No such file or directory\)"):
        VectorFile(tmp_path / "none.txt").find(["a"], lowercase_if_missing=False)
    for magic, name in ((b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh9", "bzip2")):
        with pytest.raises(HydromelError, match=rf"v: a {name} file; unpack it first"):
            found_in(tmp_path / "v", magic + b"rest of it", "a")
    with pytest.raises(HydromelError, match=r"model\.bin:1: '.*' is not a word followed by numbers"):
        found_in(tmp_path / "model.bin", bytes(range(1, 256)) * 9, "a")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for load in (VectorFile, fingerprint):
        with pytest.raises(HydromelError, match=r"/pipe: not a regular file; check embedding\.path"):
            load(tmp_path / "pipe")


def test_a_fingerprint_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(FILES["GloVe text"])
    before = fingerprint(path)
    assert fingerprint(path) == before
    path.write_bytes(FILES["GloVe text"].replace(b"0.5", b"0.6"))
    assert fingerprint(path) != before


@pytest.mark.data
def test_published_vectors_are_the_same_as_text_and_as_binary() -> None:
    folder = Path(DATA) / "vectors"
    text = folder / "glove.6B.50d.subset.txt"
    lines = text.read_text(encoding="utf-8").splitlines()
    slow = {line.split(" ")[0]: np.float32(line.split(" ")[1:]) for line in lines}
    asked = [*slow, "surely-not-there"]
    both = [VectorFile(file).find(asked, False) for file in (text, folder / "glove.6B.50d.subset.w2v.bin")]
    for actual in both:
        assert (actual.words_in_file, actual.table.shape) == (10_362, (10_362, 50))
        assert actual.row_of_word[-1] == -1
        assert np.array_equal(actual.table[actual.row_of_word[:-1]], np.stack(list(slow.values())))
