"""fastText's character n-grams and their hashes, for many words at once (Bojanowski et al. 2017; its `Dictionary`).

A word is enclosed in `<` and `>`. An n-gram is n UTF-8 characters, not bytes; `<` or `>` alone are not n-grams. Its
bucket is the 32-bit FNV-1a hash of its bytes modulo the number of buckets. Unlike standard FNV, fastText sign-extends
each byte, so bytes from 128 on also flip the upper bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runner.common.arrays import IntArray

_OFFSET, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_UTF8_BYTES = 4  # longest encoding of a character


def ngram_hashes(words: list[bytes], shortest: int, longest: int) -> tuple[npt.NDArray[np.uint32], IntArray]:
    """Return the hash of every n-gram of `shortest` to `longest` characters, and the index of its word, sorted.

    Within a word n-grams are sorted by n, then by position; fastText sorts by position, then by n. The order does not
    matter, since the vectors are averaged.
    """
    data = np.frombuffer(b"".join(b"<%b>" % word for word in words), dtype=np.uint8)
    # Sign-extend each byte to 32 bits, as fastText does when it casts to int8_t.
    signed = data.astype(np.int8).astype(np.int32).view(np.uint32)
    chars = np.flatnonzero((data & 0xC0) != 0x80)  # first byte of each character
    sizes = np.diff(chars, append=len(data))
    ends = np.cumsum([len(word) + 2 for word in words])
    word_of = np.searchsorted(ends, chars, side="right")
    first = np.diff(word_of, prepend=-1) != 0
    last = np.diff(word_of, append=len(words)) != 0

    # FNV-1a is incremental: the hash of the n-gram at a position is that of the (n-1)-gram there, extended by one
    # character. So `hashes` holds the current n-gram of every position, and each n costs one vectorised step.
    hashes = np.full(len(chars), _OFFSET)
    parts, owners = [], []
    for n in range(1, longest + 1):
        starts = np.arange(len(chars) - n + 1)
        starts = starts[word_of[starts] == word_of[starts + n - 1]]  # n-grams within a word
        if not len(starts):
            break
        hashes[starts] = _with_character(hashes[starts], signed, chars[starts + n - 1], sizes[starts + n - 1])
        if n >= shortest:
            starts = starts[~(first | last)[starts]] if n == 1 else starts
            parts.append(hashes[starts])
            owners.append(word_of[starts])
    if not parts:
        return np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.int64)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(parts)[order], owner[order]


def _with_character(
    hashes: npt.NDArray[np.uint32], signed: npt.NDArray[np.uint32], at: IntArray, size: IntArray
) -> npt.NDArray[np.uint32]:
    """Extend each hash by one character, which starts at byte `at` and has `size` bytes."""
    for byte in range(_UTF8_BYTES):
        has_byte = size > byte
        if not has_byte.any():
            break
        hashes[has_byte] = (hashes[has_byte] ^ signed[at[has_byte] + byte]) * _PRIME
    return hashes
