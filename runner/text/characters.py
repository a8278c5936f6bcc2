"""How words are spelt, as symbols: the form -> symbols table of a vocabulary, made without a loop over characters.

A symbol is UNKNOWN (a character that is not in the alphabet), BEGIN or END (of a word), or FIRST + its place in the
alphabet. `<pad>` has no symbols, `<eos>` is a word without characters, `<unk>` one of an unknown character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.text.vocab import EOS, PAD, UNK

UNKNOWN, BEGIN, END, FIRST = range(4)
_STRANGE = "\U0010ffff"  # no character, and so in no text
_SPECIAL = {PAD: "", EOS: "", UNK: _STRANGE}


@dataclass(frozen=True)
class Spelling:
    """The symbols of V forms, one form after another.

    Attributes:
        symbols: (M,) int32.
        offsets: (V+1,) int64: where each form begins; the last entry is M.
        cut: (V,) whether the form is longer than was kept of it.
    """

    symbols: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    cut: npt.NDArray[np.bool_]


def alphabet_of(forms: Sequence[str], min_count: int) -> str:
    """The characters that occur `min_count` times in these forms or more often, in the order of their code points."""
    codes, counts = np.unique(_codes(_texts(forms)), return_counts=True)
    return "".join(chr(code) for code in codes[counts >= min_count] if chr(code) != _STRANGE)


def spell(forms: Sequence[str], alphabet: str, max_characters: int) -> Spelling:
    """The symbols of each form: its first `max_characters` characters between BEGIN and END."""
    texts = _texts(forms)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    kept = np.minimum(lengths, max_characters)
    marked = kept + 2 * np.fromiter((form != PAD for form in forms), np.int64, len(forms))
    offsets = np.concatenate(([0], np.cumsum(marked)))
    symbols = np.full(offsets[-1], END, dtype=np.int32)
    symbols[offsets[:-1][marked > 0]] = BEGIN
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # of a character in its form
    read = place < max_characters
    where = np.repeat(offsets[:-1], lengths) + 1 + place
    symbols[where[read]] = _symbols(_codes(texts)[read], alphabet)
    return Spelling(symbols, offsets, lengths > max_characters)


def _symbols(codes: npt.NDArray[np.uint32], alphabet: str) -> npt.NDArray[np.int64]:
    """(M,) of these code points."""
    if not alphabet:
        return np.full(len(codes), UNKNOWN)
    known = _codes([alphabet])
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, FIRST + place, UNKNOWN)


def _texts(forms: Sequence[str]) -> list[str]:
    return [_SPECIAL.get(form, form) for form in forms]


def _codes(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """(M,) the code points of all texts, one after another."""
    return np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
