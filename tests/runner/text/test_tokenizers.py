"""Tokenizers, compared with Python text by text; white space of every kind separates."""

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.text.tokenizers import (
    CharacterTokenizer,
    Tokenizer,
    WhiteSpaceTokenizer,
    WordTokenizer,
    matches,
    split_words,
    with_offsets,
)

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Don't stop, it\u2019s 3.14 or 1,000.5%!",
            ["Don't", "stop", ",", "it\u2019s", "3.14", "or", "1,000.5", "%", "!"],
        ),
        ("http://example.com/a_b?c=1", ["http", ":", "/", "/", "example.com", "/", "a_b", "?", "c", "=", "1"]),
        ("U.S.A. said 'tis l'homme e-mail", ["U.S.A", ".", "said", "'", "tis", "l'homme", "e", "-", "mail"]),
        ("12:30 a.1 x2 1.x _a_", ["12", ":", "30", "a", ".", "1", "x2", "1", ".", "x", "_a_"]),
        (
            "\u65e5\u672c\u30ab\u30bf\u30fc\u3072\u3089 \ud55c\uad6d\uc5b4",
            ["\u65e5", "\u672c", "\u30ab\u30bf\u30fc", "\u3072", "\u3089", "\ud55c\uad6d\uc5b4"],
        ),
        (
            "\U0001f468‍\U0001f469‍\U0001f467 \U0001f44d\U0001f3fd",
            ["\U0001f468‍\U0001f469‍\U0001f467", "\U0001f44d\U0001f3fd"],
        ),
        (
            "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7\u2764\ufe0fx1\ufe0f\u20e3",
            ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "x1\ufe0f\u20e3"],
        ),
        (
            "cafe\u0301 a\u200bb a\u200db \u0645\u06cc\u200c\u062e",
            ["cafe\u0301", "a", "b", "a\u200db", "\u0645\u06cc\u200c\u062e"],
        ),
        ("<pad> \u00bdx\u00b2 5\u20ac\x00", ["<", "pad", ">", "\u00bd", "x", "\u00b2", "5", "\u20ac", "\x00"]),
        ("", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert WordTokenizer().spans(pa.array([text])).tokens().to_pylist() == [expected]


TOKENIZERS: list[Tokenizer] = [WhiteSpaceTokenizer(), WordTokenizer(), CharacterTokenizer()]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(texts=TEXTS, start=st.integers(0, 3))
def test_tokens_are_slices_and_leave_out_only_what_separates(
    tokenizer: Tokenizer, texts: list[str], start: int
) -> None:
    columns = with_offsets(tokenizer.spans(pa.array(texts, pa.string())[start:]))
    rows = zip(*(columns[name].to_pylist() for name in ("text", "tokens", "starts", "ends")), strict=True)
    separators = {WhiteSpaceTokenizer: WHITE, WordTokenizer: f"{WHITE}​", CharacterTokenizer: ""}[type(tokenizer)]
    for (text, tokens, starts, ends), given_text in zip(rows, texts[start:], strict=True):
        assert text == given_text
        assert tokens == [text[first:last] for first, last in zip(starts, ends, strict=True)]
        left = [character for character in text if character not in separators]
        assert [character for token in tokens for character in token if character not in separators] == left
        alone = tokenizer.spans(pa.array([text])).tokens()[0].as_py()
        assert alone == tokens, "other texts change nothing"
        if isinstance(tokenizer, CharacterTokenizer):
            assert tokens == list(text)


@given(TEXTS)
def test_matches_are_those_of_python(texts: list[str]) -> None:
    spans = matches(pa.array(texts, pa.string()), "[ab]+|é")
    assert spans.tokens().to_pylist() == [re.findall("[ab]+|é", text) for text in texts]
