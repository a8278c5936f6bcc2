"""The spelling of words as symbols: an id -> symbols table of a vocabulary, without a loop over characters.

A symbol is UNKNOWN (a character that is not in the alphabet), BEGIN or END (of a word), or FIRST + the character's
index in the alphabet. The id of padding has no symbols, that of line ends is spelled as a word without characters, and
that of unknown words as one unknown character.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.text.vocab import EOS, PAD, UNK, Vocab

UNKNOWN, BEGIN, END, FIRST = range(4)
_NONCHARACTER = "\U0010ffff"  # not a character, so it is in no alphabet
_SPECIAL = {PAD: "", EOS: "", UNK: _NONCHARACTER}


@dataclass(frozen=True)
class Spelling:
    """The concatenated symbols of V ids."""

    symbols: npt.NDArray[np.int32]  # (M,)
    offsets: npt.NDArray[np.int64]  # (V+1,) start of each id; the last entry is M
    cut: npt.NDArray[np.bool_]  # (V,) true if the form was truncated


def alphabet_of(forms: Sequence[str], min_count: int) -> str:
    """Return the characters that occur at least `min_count` times in the forms, sorted by code point."""
    codes, counts = np.unique(_codes(forms), return_counts=True)
    return "".join(chr(code) for code in codes[counts >= min_count] if chr(code) != _NONCHARACTER)


def spell(vocab: Vocab, alphabet: str, max_characters: int) -> Spelling:
    """Return the symbols of each id: the first `max_characters` characters of its form between BEGIN and END."""
    texts = [*(_SPECIAL[name] for name in vocab.specials), *vocab.strings]
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    kept = np.minimum(lengths, max_characters)
    n_symbols = kept + 2
    if PAD in vocab.specials:
        n_symbols[vocab.pad] = 0
    offsets = np.concatenate(([0], np.cumsum(n_symbols)))
    # Fill everything with END, then write the BEGINs and the characters: what remains is the END of each form.
    symbols = np.full(offsets[-1], END, dtype=np.int32)
    symbols[offsets[:-1][n_symbols > 0]] = BEGIN
    # index of each character in its form
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    is_kept = position < max_characters
    slots = np.repeat(offsets[:-1], lengths) + 1 + position
    symbols[slots[is_kept]] = _symbols(_codes(texts)[is_kept], alphabet)
    return Spelling(symbols, offsets, lengths > max_characters)


def _symbols(codes: npt.NDArray[np.uint32], alphabet: str) -> npt.NDArray[np.int64]:
    """Return the symbols (M,) of code points (M,)."""
    if not alphabet:
        return np.full(len(codes), UNKNOWN)
    # The alphabet is sorted by code point, so a binary search finds each character.
    known = _codes([alphabet])
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, FIRST + place, UNKNOWN)


def _codes(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Return the code points (M,) of all texts, concatenated."""
    return np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
