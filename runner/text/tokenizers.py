"""Tokenizers: where the tokens of raw text are, found in whole Arrow columns without a loop over texts or tokens.

A tokenizer only finds tokens. It never changes them, so a token is the part of its text between two positions.
White space is the Unicode property White_Space: tab to carriage return, space, U+0085, U+00A0, U+1680, U+2000 to
U+200A, U+2028, U+2029, U+202F, U+205F and U+3000. Zero-width characters (U+200B to U+200D, U+2060, U+FEFF) do not have
it.

Shapes: B texts, N tokens of all texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.common.arrays import BoolArray, IntArray
from runner.text.arrow import list_column, utf8_bytes

WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # in a class of a regular expression
_WORD = re.compile(f"[^{WHITE_SPACE}]+")
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


class Tokenizer(Protocol):
    """A way to find the tokens of raw text."""

    def spans(self, texts: pa.Array) -> TokenSpans:
        """Return the tokens of texts (B,); no token is empty, and tokens of a text do not overlap."""


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


def split_words(texts: pa.Array) -> pa.ListArray:
    """Split strings (B,) into B lists of tokens at white space."""
    return WhiteSpaceTokenizer().spans(texts).tokens()


def words_of(text: str) -> list[str]:
    """Return the tokens of one text between white space; it may contain surrogates, which Arrow refuses."""
    return _WORD.findall(text)


def _white_space(data: npt.NDArray[np.uint8]) -> BoolArray:
    """Return a mask (M,) of the bytes of UTF-8 that belong to white space."""
    white: BoolArray = _ONE_BYTE[data]
    long = np.flatnonzero((data == 0xC2) | ((data >= 0xE1) & (data <= 0xE3)))  # the first bytes of the longer ones
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
