"""A matrix of a fastText model: float32 numbers, or codes of a product quantiser.

A product quantiser (Jegou et al. 2011, Joulin et al. 2016) splits a vector into parts of size `part` (the last may be
smaller), and stores for each part the index of the nearest of 256 centroids. With `qnorm` the vector's norm is
quantised separately, by a quantiser of size 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runner.common.arrays import IntArray
from runner.embeddings.vector_files.binary_reader import BinaryReader
from runner.embeddings.vector_files.table import Table

_CENTROIDS = 256
_FLOAT, _BYTE = np.dtype("<f4"), np.dtype("u1")


class DenseMatrix:
    """A matrix of float32 numbers of `shape` (R, D), memory-mapped."""

    def __init__(self, file: BinaryReader) -> None:
        self.shape = _shape(file)
        self._data = file.array(_FLOAT, self.shape[0] * self.shape[1], "a matrix").reshape(self.shape)

    def rows(self, chosen: IntArray) -> Table:
        """Return the chosen rows (k, D)."""
        rows: Table = self._data[chosen]
        return rows


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
        self._norms: npt.NDArray[np.float32] | None = None
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


def _centroids(file: BinaryReader) -> list[npt.NDArray[np.float32]]:
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
