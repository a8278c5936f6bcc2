"""Sequential reading of a fastText model, and its matrices: float32 numbers, or codes of a product quantiser.

A product quantiser (Jegou et al. 2011, Joulin et al. 2016) splits a vector into parts of size `part` (the last may be
smaller), and stores for each part the index of the nearest of 256 centroids. With `qnorm` the vector's norm is
quantised separately, by a quantiser of size 1.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from runner.common.arrays import IntArray, SingleArray
from runner.common.errors import HydromelError
from runner.embeddings.vector_files.table import Table

_CENTROIDS = 256
_FLOAT, _BYTE = np.dtype("<f4"), np.dtype("u1")


Scalar = TypeVar("Scalar", bound=np.generic)


class BinaryReader:
    """A reading position in a mapped file; numbers are little endian. `path` is for messages."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def integers(self, layout: str, what: str) -> tuple[int, ...]:
        """Read integers or booleans in the `struct` format `layout`; `what` names them in an error message."""
        start = self._advance(struct.calcsize(f"<{layout}"), what)
        return struct.unpack_from(f"<{layout}", self.data, start)

    def array(self, dtype: np.dtype[Scalar], count: int, what: str) -> npt.NDArray[Scalar]:
        """Read an array (count,), as a view of the file."""
        start = self._advance(dtype.itemsize * count, what)
        return np.frombuffer(self.data, dtype, count, start)

    def damage_error(self, problem: str) -> HydromelError:
        """Return the error to raise if the file is damaged."""
        return HydromelError(f"{self.path}: truncated or damaged: {problem}; get the file again")

    def _advance(self, n_bytes: int, what: str) -> int:
        start, self.at = self.at, self.at + n_bytes
        if n_bytes < 0 or self.at > len(self.data):
            raise self.damage_error(f"{what} should end at byte {self.at:,}, but the file has {len(self.data):,} bytes")
        return start


class DenseMatrix:
    """A matrix of float32 numbers of `shape` (R, D), memory-mapped."""

    def __init__(self, file: BinaryReader) -> None:
        self.shape = _shape(file)
        self._data = file.array(_FLOAT, self.shape[0] * self.shape[1], "a matrix").reshape(self.shape)

    def rows(self, chosen: IntArray) -> Table:
        """Return the chosen rows (k, D)."""
        return self._data[chosen]


class QuantisedMatrix:
    """A matrix of product-quantised codes of `shape` (R, D), memory-mapped."""

    def __init__(self, file: BinaryReader) -> None:
        has_norms = file.integers("?", "a matrix")[0]
        self.shape = _shape(file)
        n_rows, size = self.shape
        n_codes = file.integers("i", "a matrix")[0]
        codes = file.array(_BYTE, n_codes, "the codes")
        self._parts = _centroids(file)
        if n_codes != n_rows * len(self._parts) or sum(part.shape[1] for part in self._parts) != size:
            raise file.damage_error(f"{n_codes:,} codes for {n_rows:,} rows of size {size}")
        self._codes = codes.reshape(n_rows, len(self._parts))
        self._norms: SingleArray | None = None
        if has_norms:
            norm_codes = file.array(_BYTE, n_rows, "the codes of norms")
            self._norms = _centroids(file)[0][norm_codes]

    def rows(self, chosen: IntArray) -> Table:
        """Return the chosen rows (k, D)."""
        codes = self._codes[chosen]
        rows: Table = np.concatenate([part[codes[:, place]] for place, part in enumerate(self._parts)], axis=1)
        return rows if self._norms is None else rows * self._norms[chosen]


def _shape(file: BinaryReader) -> tuple[int, int]:
    n_rows, size = file.integers("2q", "a matrix")
    if n_rows < 0 or size < 1:
        raise file.damage_error(f"a matrix of {n_rows:,} rows of size {size:,}")
    return n_rows, size


def _centroids(file: BinaryReader) -> list[SingleArray]:
    """Read the centroids of each part: (256, size of the part)."""
    size, n_parts, part, last = file.integers("4i", "the quantiser")
    values = file.array(_FLOAT, size * _CENTROIDS, "the centroids")
    if min(size, n_parts, part, last) < 1 or (n_parts - 1) * part + last != size:
        raise file.damage_error(
            f"a quantiser of {n_parts} parts of size {part}, the last of {last}, for vectors of size {size}"
        )
    # All parts but the last have the same size, so they are one array; the last follows it.
    cut = (n_parts - 1) * part * _CENTROIDS
    parts = values[:cut].reshape(n_parts - 1, _CENTROIDS, part)
    return [*parts, values[cut:].reshape(_CENTROIDS, last)]
