"""fastText's character n-grams and their hash, for many words at once (Bojanowski et al. 2017; its `Dictionary`).

A word is read between `<` and `>`. An n-gram is n characters of UTF-8, not bytes; `<` or `>` alone are none. Its bucket
is the 32-bit FNV-1a hash of its bytes, each extended by its sign (so that bytes from 128 on flip the upper bits too:
fastText's own departure from FNV), modulo the number of buckets.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runner.common.arrays import IntArray

_OFFSET, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_UTF8_BYTES = 4  # at most, of a character


def ngram_hashes(words: list[bytes], shortest: int, longest: int) -> tuple[npt.NDArray[np.uint32], IntArray]:
    """The hash of every n-gram of `shortest` to `longest` characters, and which word it is of, in the words' order.

    Within a word they are in the order of n, then of place; fastText has them by place, then n. A mean has no order.
    """
    data = np.frombuffer(b"".join(b"<%b>" % word for word in words), dtype=np.uint8)
    signed = data.astype(np.int8).astype(np.int32).view(np.uint32)
    begins = (data & 0xC0) != 0x80  # of characters
    chars = np.flatnonzero(begins)
    sizes = np.diff(chars, append=len(data))
    ends = np.cumsum([len(word) + 2 for word in words])
    word_of = np.searchsorted(ends, chars, side="right")
    first = np.diff(word_of, prepend=-1) != 0
    last = np.diff(word_of, append=len(words)) != 0

    hashes = np.full(len(chars), _OFFSET)
    found, owners = [], []
    for n in range(1, longest + 1):
        here = np.arange(len(chars) - n + 1)
        here = here[word_of[here] == word_of[here + n - 1]]  # n-grams within a word
        if not len(here):
            break
        hashes[here] = _with_character(hashes[here], signed, chars[here + n - 1], sizes[here + n - 1])
        if n >= shortest:
            here = here[~(first | last)[here]] if n == 1 else here
            found.append(hashes[here])
            owners.append(word_of[here])
    if not found:
        return np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.int64)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(found)[order], owner[order]


def _with_character(
    hashes: npt.NDArray[np.uint32], signed: npt.NDArray[np.uint32], at: IntArray, size: IntArray
) -> npt.NDArray[np.uint32]:
    """The hashes, gone on by one character each, which begins at byte `at` and has `size` bytes."""
    for byte in range(_UTF8_BYTES):
        more = size > byte
        if not more.any():
            break
        hashes[more] = (hashes[more] ^ signed[at[more] + byte]) * _PRIME
    return hashes
