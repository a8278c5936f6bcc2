"""Tokenizers, compared with Python text by text; white space of every kind separates."""

import re

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from runner.text.tokenizers import WhiteSpaceTokenizer, split_words

# PropList.txt of Unicode: White_Space
WHITE = "".join(
    chr(code)
    for code in (
        *range(9, 14),
        0x20,
        0x85,
        0xA0,
        0x1680,
        *range(0x2000, 0x200B),
        0x2028,
        0x2029,
        0x202F,
        0x205F,
        0x3000,
    )
)
TEXTS = st.lists(
    st.text(st.sampled_from(f"ab.é戦😂\x00\u0301\u200b\ufeff{WHITE}") | st.characters(codec="utf-8"), max_size=12),
    max_size=8,
)


def slow_words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(f"[^{WHITE}]+", text)]


@given(TEXTS, st.integers(0, 3))
def test_white_space_of_every_kind_separates(texts: list[str], start: int) -> None:
    column = pa.array(texts, pa.string())[start:]
    spans = WhiteSpaceTokenizer().spans(column)
    expected = [slow_words(text) for text in texts[start:]]
    assert [
        [*zip(*pair, strict=True)] for pair in zip(*(item.to_pylist() for item in spans.characters()), strict=True)
    ] == expected
    assert spans.tokens().to_pylist() == [
        [text[first:last] for first, last in row] for text, row in zip(texts[start:], expected, strict=True)
    ]


def test_every_white_space_character_and_no_other() -> None:
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    column = pa.array([f"a{chr(code)}b" for code in codes], pa.string())
    separators = {chr(code) for code, row in zip(codes, split_words(column).to_pylist(), strict=True) if len(row) == 2}
    assert separators == set(WHITE)
