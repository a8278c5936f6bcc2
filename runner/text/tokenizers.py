"""Tokenizers: where the tokens of raw text are, found in whole Arrow columns without a loop over texts or tokens.

A tokenizer only finds tokens. It never changes them, so a token is the part of its text between two positions.
White space is the Unicode property White_Space: tab to carriage return, space, U+0085, U+00A0, U+1680, U+2000 to
U+200A, U+2028, U+2029, U+202F, U+205F and U+3000. Zero-width characters (U+200B to U+200D, U+2060, U+FEFF) do not have
it.

Shapes: B texts, N tokens of all texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import BoolArray, IntArray
from runner.text.arrow import list_column, utf8_bytes

# as written in a character class of a regular expression
WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_ONE_BYTE = np.isin(np.arange(256), [*range(9, 14), 32])
_TWO_BYTES = np.array([0xC285, 0xC2A0])
_LATER = (0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
_THREE_BYTES = np.array([int.from_bytes(chr(code).encode()) for code in _LATER])


@dataclass(frozen=True)
class TokenSpans:
    """The tokens of texts, by their places in the texts' UTF-8 bytes."""

    texts: pa.Array  # (B,) strings
    starts: IntArray  # (N,) first byte of each token among the bytes of all texts, increasing
    ends: IntArray  # (N,) its last byte + 1

    def tokens(self) -> pa.ListArray:
        """Return the tokens of each text, (B,) lists of strings."""
        data, offsets = utf8_bytes(self.texts)
        steps = np.zeros(len(data) + 1, np.int8)
        steps[self.starts] += 1
        steps[self.ends] -= 1
        kept = data[np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_)]
        bounds = np.concatenate(([0], np.cumsum(self.ends - self.starts))).astype(np.int32)
        tokens = pa.StringArray.from_buffers(len(self.starts), pa.py_buffer(bounds), pa.py_buffer(kept))
        return list_column(tokens, np.searchsorted(self.starts, offsets))

    def characters(self) -> tuple[pa.ListArray, pa.ListArray]:
        """Return the first character of each token in its text, and its last + 1: (B,) lists of int32."""
        data, offsets = utf8_bytes(self.texts)
        before = np.concatenate(([0], np.cumsum((data & 0xC0) != 0x80, dtype=np.int64)))  # characters before each byte
        bounds = np.searchsorted(self.starts, offsets)
        of_text = np.repeat(before[offsets[:-1]], np.diff(bounds))

        def in_text(at: IntArray) -> pa.ListArray:
            return list_column(pa.array(before[at] - of_text, pa.int32()), bounds)

        return in_text(self.starts), in_text(self.ends)


OFFSETS = ("text", "starts", "ends")  # columns of a corpus: the raw text, and where in it each token is


def with_offsets(spans: TokenSpans) -> dict[str, pa.Array]:
    """Return the column `tokens`, and the columns `OFFSETS`: the text, and lists of its characters' places."""
    starts, ends = spans.characters()
    return {"tokens": spans.tokens(), "text": spans.texts, "starts": starts, "ends": ends}


@runtime_checkable
class Tokenizer(Protocol):
    """A way to find the tokens of raw text; its `repr` contains all options."""

    def spans(self, texts: pa.Array) -> TokenSpans:
        """Return the tokens of texts (B,); no token is empty, and tokens of a text do not overlap."""


@runtime_checkable
class HasTokenizer(Protocol):
    """A corpus that makes tokens from raw text."""

    tokenizer: Tokenizer


@dataclass(frozen=True, kw_only=True)
class WhiteSpaceTokenizer:
    """A tokenizer whose tokens are the longest parts without white space."""

    def spans(self, texts: pa.Array) -> TokenSpans:
        data, offsets = utf8_bytes(texts)
        inside = ~_white_space(data)
        starts, ends = inside.copy(), inside.copy()
        # A token starts behind white space or at the start of a text, and ends likewise.
        starts[1:] &= ~inside[:-1]
        ends[:-1] &= ~inside[1:]
        first = offsets[:-1][np.diff(offsets) > 0]
        starts[first] = inside[first]
        ends[first[1:] - 1] = inside[first[1:] - 1]
        return TokenSpans(texts, np.flatnonzero(starts), np.flatnonzero(ends) + 1)


WHITESPACE: Tokenizer = WhiteSpaceTokenizer()


@dataclass(frozen=True, kw_only=True)
class CharacterTokenizer:
    """A tokenizer whose tokens are single code points, white space included."""

    def spans(self, texts: pa.Array) -> TokenSpans:
        data, _ = utf8_bytes(texts)
        starts = np.flatnonzero((data & 0xC0) != 0x80)  # all bytes of UTF-8 except the continuation bytes 10xxxxxx
        return TokenSpans(texts, starts, np.append(starts[1:], len(data))[: len(starts)])


# Classes of characters for `WORD` (RE2); each may be followed by marks, which belong to it.
_MARKS = r"(?:\p{M}|[^\P{Cf}\x{200B}]|[\x{1F3FB}-\x{1F3FF}])*"
_SCRIPTS_WITHOUT_SPACES = "".join(rf"\p{{{name}}}" for name in ("Han", "Hiragana", "Thai", "Lao", "Khmer", "Myanmar"))
_LETTERS = rf"(?:[^\P{{L}}{_SCRIPTS_WITHOUT_SPACES}\p{{Katakana}}]{_MARKS})+"
_DIGITS = rf"(?:\p{{Nd}}{_MARKS})+"
_KATAKANA = rf"(?:[\p{{Katakana}}\x{{30FC}}\x{{FF70}}]{_MARKS})+"
_FLAG = r"[\x{1F1E6}-\x{1F1FF}]"
# A word, a run of katakana, a flag, a pictograph with those joined to it, or any other character.
WORD = "|".join(
    (
        rf"(?:{_LETTERS}(?:[.':\x{{B7}}\x{{2019}}]{_MARKS}{_LETTERS})*"
        rf"|{_DIGITS}(?:[.,;'\x{{2019}}]{_MARKS}{_DIGITS})*|(?:\p{{Pc}}{_MARKS})+)+",
        _KATAKANA,
        rf"{_FLAG}{_MARKS}{_FLAG}{_MARKS}",
        rf"\p{{So}}(?:{_MARKS}\x{{200D}}\p{{So}})*{_MARKS}",
        rf"[^{WHITE_SPACE}\x{{200B}}]{_MARKS}",
    )
)


@dataclass(frozen=True, kw_only=True)
class WordTokenizer:
    """A tokenizer into words, numbers and single other characters: `WORD`, close to Unicode Standard Annex 29.

    - Letters, digits and underscores make words. `.`, `:`, `·` and apostrophes stay inside between letters (`don't`,
      `U.S`), and `.`, `,`, `;` and apostrophes between digits (`1,000.5`).
    - Every other character is a token: punctuation, symbols, and each letter of scripts without spaces (Chinese
      characters, hiragana, Thai, Lao, Khmer, Burmese); a run of katakana is one token.
    - Marks and invisible format characters belong to the character before them. Two regional indicators are a flag, and
      pictographs with zero-width joiners between them are one token.
    - White space, and the zero-width space U+200B, separate and are no tokens.

    Hebrew words with quotation marks inside are split, unlike in the annex.
    """

    def spans(self, texts: pa.Array) -> TokenSpans:
        return matches(texts, WORD)


BY_NAME: dict[str, Tokenizer] = {
    "whitespace": WHITESPACE,
    "words": WordTokenizer(),
    "characters": CharacterTokenizer(),
}


def matches(texts: pa.Array, pattern: str) -> TokenSpans:
    """Return the matches of a regular expression in texts (B,), from left to right: RE2's syntax, without empty ones.

    Arrow cannot find all matches, but it can mark them: the positions of the marks give those of the matches.
    """
    mark = "\0"
    unmarked = pc.replace_substring(texts, mark, "\x01")  # a replacement of the same length
    marked, _ = utf8_bytes(pc.replace_substring_regex(unmarked, pattern, rf"{mark}\0{mark}"))
    places = np.flatnonzero(marked == 0)
    places -= np.arange(len(places))
    return TokenSpans(texts, places[::2], places[1::2])


def split_words(texts: pa.Array) -> pa.ListArray:
    """Split strings (B,) into B lists of tokens at white space."""
    return WHITESPACE.spans(texts).tokens()


def tokenizer_of(corpus: object) -> Tokenizer:
    """Return the tokenizer of a corpus; white space for one whose files have tokens already."""
    return corpus.tokenizer if isinstance(corpus, HasTokenizer) else WHITESPACE


def _white_space(data: npt.NDArray[np.uint8]) -> BoolArray:
    """Return a mask (M,) of the bytes of UTF-8 that belong to white space."""
    white: BoolArray = _ONE_BYTE[data]
    # first bytes of white space of several bytes
    long = np.flatnonzero((data == 0xC2) | ((data >= 0xE1) & (data <= 0xE3)))
    codes = data[long].astype(np.int32) << 8 | data[long + 1]
    for n_bytes, wanted in ((2, _TWO_BYTES), (3, _THREE_BYTES)):
        if n_bytes == 3:
            three = data[long] != 0xC2
            long = long[three]
            codes = codes[three] << 8 | data[long + 2]
        found = long[np.isin(codes, wanted)]
        for byte in range(n_bytes):
            white[found + byte] = True
    return white
