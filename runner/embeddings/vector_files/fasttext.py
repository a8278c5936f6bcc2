"""fastText `.bin` models: header, dictionary, and the input matrix, plain or product-quantised (Joulin et al. 2016).

A word's vector is the mean of its own row and the rows of its n-grams; for a word that the model lacks, of its n-grams
only. The layout is that of `FastText::saveModel` (versions 11 and 12), little endian; rows are memory-mapped.

N-grams (Bojanowski et al. 2017) are those of the word enclosed in `<` and `>`, in UTF-8 characters, not bytes; `<` or
`>` alone are not n-grams. The bucket of an n-gram is the 32-bit FNV-1a hash of its bytes modulo the number of buckets.
Unlike standard FNV, fastText sign-extends each byte, so bytes from 128 on also flip the upper bits.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from runner.common.arrays import BoolArray, IntArray
from runner.common.errors import HydromelError
from runner.common.types import UnicodeForm
from runner.embeddings.vector_files.fasttext_matrix import BinaryReader, DenseMatrix, QuantisedMatrix
from runner.embeddings.vector_files.table import FoundVectors, Table, map_file
from runner.text.normal_forms import normal_bytes

MAGIC = struct.pack("<i", 793712314)
_SUPERVISED = 3
_END_OF_SENTENCE = b"</s>"  # has no n-grams
_CHUNK_WORDS = 2048
_OFFSET, _PRIME = np.uint32(2166136261), np.uint32(16777619)
_UTF8_BYTES = 4  # longest encoding of a character


def read_fasttext(path: Path, forms: list[bytes], lowered: list[bytes], unicode: UnicodeForm) -> FoundVectors:
    """Return the vectors of words: of the form if the model has it, else of the lower-case form if the model has that.

    If it has neither, the vector is composed of the form's n-grams.

    Raises:
        HydromelError: the file is truncated, damaged or of another version, or contains a number that is not finite.
    """
    model = FastTextModel(BinaryReader(path, map_file(path)), {*forms, *lowered}, unicode)
    pairs = zip(forms, lowered, strict=True)
    used = [low if form not in model.ids and low in model.ids else form for form, low in pairs]
    place = {word: index for index, word in enumerate(dict.fromkeys(used))}
    # The table has rows only for forms that have a vector, so a form's row is its rank among these.
    table, has_vector = model.vectors(list(place))
    row_of_form = np.where(has_vector, np.cumsum(has_vector) - 1, -1)
    row_of_word = row_of_form[[place[word] for word in used]]
    composed = sum(row >= 0 and word not in model.ids for word, row in zip(used, row_of_word, strict=True))
    return FoundVectors(model.name, table, row_of_word, model.n_words, model.duplicates, composed)


class FastTextModel:
    """The parts of a fastText model that are needed for the vectors of `wanted` words."""

    def __init__(self, file: BinaryReader, wanted: set[bytes], unicode: UnicodeForm) -> None:
        self._path, self._unicode = file.path, unicode
        self.duplicates = 0  # number of wanted words that occur again
        self._spellings: dict[bytes, bytes] = {}  # word -> spelling in the file, if it differs before normalisation
        _, version = file.integers("ii", "the header")
        if version not in (11, 12):
            raise HydromelError(f"{file.path}: fastText model of version {version}; use one of version 11 or 12")
        # dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate; unused: t
        options = file.integers("12i8x", "the header")
        self.size, *_, kind, self._buckets, self._shortest, self._longest, _ = options
        if version == 11 and kind == _SUPERVISED:
            self._longest = 0  # these models had no n-grams, whatever their options say
        n_entries, self.n_words, _, _, n_pruned = file.integers("3i2q", "the header")
        if not 0 <= self.n_words <= n_entries or self._buckets < (self._longest > 0):
            raise file.damage_error(
                f"{self.n_words:,} words of {n_entries:,} entries, {self._buckets:,} buckets of n-grams"
            )
        self.ids = self._read_dictionary(file, n_entries, wanted)
        self._kept = file.array(np.dtype("<i4"), 2 * max(n_pruned, 0), "the list of kept n-grams").reshape(-1, 2)
        self._all_kept = n_pruned < 0
        quantised = file.integers("?", "the kind of matrix")[0]
        self.name = "fastText .bin, quantised" if quantised else "fastText .bin"
        self._matrix = QuantisedMatrix(file) if quantised else DenseMatrix(file)
        output_quantised = file.integers("?", "the kind of the output matrix")[0]
        # the output matrix is not used, but reading it detects a truncated file
        (QuantisedMatrix if quantised and output_quantised else DenseMatrix)(file)
        # the matrix must have every row that a word or an n-gram can refer to
        n_rows, size = self._matrix.shape
        n_ngrams = 0 if self._longest < 1 else self._buckets
        if n_ngrams and not self._all_kept:
            n_ngrams = int(self._kept[:, 1].max(initial=-1)) + 1
        if size != self.size or n_rows < self.n_words + n_ngrams or self._kept.min(initial=0) < 0:
            raise file.damage_error(
                f"a matrix of {n_rows:,} rows of size {size}, for {self.n_words:,} words and {n_ngrams:,} n-grams of "
                f"size {self.size}"
            )

    def vectors(self, words: list[bytes]) -> tuple[Table, BoolArray]:
        """Return the vectors (R, D) of the words that have at least one row, and a mask (W,) of these words."""
        table = np.empty((len(words), self.size), dtype=np.float32)
        has_vector, count = np.zeros(len(words), dtype=bool), 0
        # In chunks, since all rows of all n-grams would take much more memory than the means.
        for start in range(0, len(words), _CHUNK_WORDS):
            chunk = words[start : start + _CHUNK_WORDS]
            rows, owner = self._rows_of(chunk)
            present, first, n_rows = np.unique(owner, return_index=True, return_counts=True)
            if not len(present):
                continue
            means = np.add.reduceat(self._matrix.rows(rows), first) / n_rows[:, None].astype(np.float32)
            not_finite = ~np.isfinite(means).all(axis=1)
            if not_finite.any():
                word = chunk[int(present[not_finite.argmax()])].decode(errors="replace")
                raise HydromelError(f"{self._path}: the vector of '{word}' contains a number that is not finite")
            table[count : count + len(present)] = means
            has_vector[start + present] = True
            count += len(present)
        return table[:count], has_vector

    def _rows_of(self, words: list[bytes]) -> tuple[IntArray, IntArray]:
        """Return the matrix rows of all words, and the index of the word that each row belongs to, sorted."""
        own = np.array([self.ids.get(word, -1) for word in words], dtype=np.int64)
        spelled = [self._spellings.get(word, word) for word in words]
        hashes, owner = ngram_hashes(spelled, self._shortest, self._longest)
        bucket = hashes.astype(np.int64) % max(1, self._buckets)
        ends = np.array([word == _END_OF_SENTENCE for word in words], dtype=bool)
        kept = ~ends[owner]
        if not self._all_kept:
            old, new = self._kept[np.argsort(self._kept[:, 0])].T.astype(np.int64)
            at = np.searchsorted(old, bucket)
            kept &= np.append(old, -1)[at] == bucket
            bucket = np.append(new, 0)[at]  # the number after pruning
        known = np.flatnonzero(own >= 0)
        rows = np.concatenate([own[known], self.n_words + bucket[kept]])
        owners = np.concatenate([known, owner[kept]])
        order = np.argsort(owners, kind="stable")
        return rows[order], owners[order]

    def _read_dictionary(self, file: BinaryReader, n_entries: int, wanted: set[bytes]) -> dict[bytes, int]:
        """Return the rows of the wanted words; entries have no index, so each is found from the end of the previous."""
        ids: dict[bytes, int] = {}
        data, at = file.data, file.at
        for row in range(n_entries):
            end = data.find(b"\0", at)
            if end < 0 or end + 10 > len(data):
                raise file.damage_error(f"the file ends within entry {row + 1:,} of {n_entries:,}")
            spelling = data[at:end]  # labels come after the words
            if row < self.n_words and (word := normal_bytes(spelling, self._unicode)) in wanted:
                if word in ids:
                    self.duplicates += 1
                else:
                    ids[word] = row
                    if spelling != word:
                        self._spellings[word] = spelling
            at = end + 10  # skip the zero byte, a count of 8 bytes and a kind of 1 byte
        file.at = at
        return ids


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
        added = chars[starts + n - 1]  # first byte of the character by which each n-gram grows
        for byte in range(_UTF8_BYTES):
            longer = sizes[starts + n - 1] > byte
            hashes[starts[longer]] = (hashes[starts[longer]] ^ signed[added[longer] + byte]) * _PRIME
        if n >= shortest:
            starts = starts[~(first | last)[starts]] if n == 1 else starts
            parts.append(hashes[starts])
            owners.append(word_of[starts])
    if not parts:
        return np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.int64)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(parts)[order], owner[order]
