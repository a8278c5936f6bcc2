"""Vectors of a frozen transformer, computed once for the rows of a data set and kept in files.

A file holds the vectors of the distinct rows of a split. Its name is a hash of all that they depend on: the weights,
the options and the pieces of these rows. They are computed in a fixed order, in batches of similar lengths, so they are
the same whatever the batching strategy, the seed and the epoch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.files import cannot_write, remove_leftovers
from runner.ragged.ragged import Ragged

MOST_WORDS = 4096  # of a batch in which vectors are computed, unless a single row has more
_CHECKSUM_BYTES = 4  # at the end of a file, CRC-32 of all before them
_CHUNK = 2**24
Vectors = npt.NDArray[np.floating]
# Computes the vectors (N, layers, D) of rows of words; with `longer`, each row has that many vectors more.
Compute = Callable[[Ragged], Tensor]


@dataclass
class VectorCache:
    """The vectors of rows by their words; `key` is a hash of what they depend on besides their rows.

    Args:
        folder: folder of the files; None: vectors are kept in memory only.
    """

    folder: Path | None
    key: str
    n_computed: int = 0  # rows whose vectors were computed now, not read from a file
    files: list[Path] = field(default_factory=list)
    _parts: list[Vectors] = field(default_factory=list)
    _places: dict[bytes, tuple[int, int, int]] = field(default_factory=dict)  # of each row: part, start, length

    def __deepcopy__(self, memo: object) -> Self:
        return self  # nothing in it changes once training begins

    @property
    def n_bytes(self) -> int:
        """The size of all vectors."""
        return sum(part.nbytes for part in self._parts)

    def add(self, words: Ragged, pieces: Sequence[bytes], longer: int, compute: Compute) -> None:
        """Add the rows of a split (packed, on the host), given the content of their `pieces`.

        `longer` is the number of vectors of a row besides those of its words.

        Raises:
            HydromelError: the disk has no room for them.
        """
        rows, host = words.rows, words.on_host()
        names = [
            host[start:end].tobytes() for start, end in zip(rows.host_offsets, rows.host_offsets[1:], strict=False)
        ]
        first = {name: place for place, name in reversed([*enumerate(names)]) if name not in self._places}
        distinct = sorted(first, key=lambda name: (len(name), pieces[first[name]], name))
        if not distinct:
            return
        order = np.array([first[name] for name in distinct], dtype=np.int64)
        lengths = rows.host_lengths[order] + longer
        path = None if self.folder is None else self._path([pieces[place] for place in order], lengths)
        vectors = None if path is None else _read(path)
        if vectors is None:
            batches = _batches(words, order)
            vectors = _write(path, batches, compute, int(lengths.sum()))
            self.n_computed += len(order)
        starts = np.cumsum(lengths) - lengths
        for name, start, length in zip(distinct, starts.tolist(), lengths.tolist(), strict=True):
            self._places[name] = len(self._parts), start, length
        self._parts.append(vectors)
        if path is not None:
            self.files.append(path)

    def look_up(self, words: Ragged) -> Tensor | None:
        """Return the vectors (N, layers, D) of rows of words, on the host; None if a row is missing."""
        offsets, host = words.rows.host_offsets.tolist(), words.on_host()
        found = []
        for row in range(words.rows.n_rows):
            place = self._places.get(host[offsets[row] : offsets[row + 1]].tobytes())
            if place is None:
                return None
            part, start, length = place
            found.append(self._parts[part][start : start + length])
        return torch.from_numpy(np.concatenate(found)) if found else None

    def _path(self, pieces: Sequence[bytes], lengths: IntArray) -> Path:
        digest = hashlib.sha256(self.key.encode())
        digest.update(lengths.astype("<i8").tobytes())
        for piece in pieces:
            digest.update(len(piece).to_bytes(8, "little") + piece)
        assert self.folder is not None
        return self.folder / f"vectors-{digest.hexdigest()[:24]}.npy"


class StandIn:
    """A cache that has zeros for any row, for trials of time and memory.

    Args:
        shape: number of layers and numbers of a vector.
        longer: number of vectors of a row besides those of its words.
    """

    def __init__(self, shape: tuple[int, int], longer: int) -> None:
        self.shape, self.longer = shape, longer

    def look_up(self, words: Ragged) -> Tensor:
        """Return vectors as `VectorCache.look_up` does."""
        zeros = np.zeros((words.rows.max_len + self.longer, *self.shape), dtype=np.float32)
        found = [zeros[:length] for length in words.rows.host_lengths + self.longer]
        return torch.from_numpy(np.concatenate(found))


def _batches(words: Ragged, order: IntArray) -> list[Ragged]:
    """Return rows in this order, from short to long, in batches of at most `MOST_WORDS` places."""
    longest = np.maximum(1, words.rows.host_lengths[order])
    batches, start = [], 0
    while start < len(order):
        places = longest[start:] * np.arange(1, len(order) - start + 1)
        end = start + max(1, int(np.searchsorted(places, MOST_WORDS, side="right")))
        batches.append(words.select(order[start:end]))
        start = end
    return batches


def _write(path: Path | None, batches: Sequence[Ragged], compute: Compute, n_vectors: int) -> Vectors:
    """Compute all vectors, write them to a new file if there is a path, and return them."""
    first = compute(batches[0]).cpu().numpy()
    shape = (n_vectors, *first.shape[1:])
    if path is None:
        vectors: Vectors = np.empty(shape, first.dtype)
        _fill(vectors, first, batches, compute)
        return vectors
    needed = int(np.prod(shape)) * first.dtype.itemsize
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, ".vectors-*", older_than_s=60.0)
        if (free := shutil.disk_usage(path.parent).free) < needed:
            raise HydromelError(
                f"embedding.cache=true needs {needed / 1e6:,.0f} MB in {path.parent}, with {free / 1e6:,.0f} MB left; "
                "use another cache_dir, or embedding.cache=false"
            )
        temporary.unlink(missing_ok=True)
        mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=first.dtype, shape=shape)
        _fill(mapped, first, batches, compute)
        mapped.flush()
        del mapped
        checksum = _checksum(temporary, temporary.stat().st_size)
        with temporary.open("ab") as file:
            file.write(checksum)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise
    written = _read(path)
    assert written is not None
    return written


def _fill(vectors: Vectors, first: Vectors, batches: Sequence[Ragged], compute: Compute) -> None:
    vectors[: len(first)], end = first, len(first)
    for batch in batches[1:]:
        computed = compute(batch).cpu().numpy()
        vectors[end : end + len(computed)] = computed
        end += len(computed)


def _read(path: Path) -> Vectors | None:
    """Return the vectors of a file, mapped into memory; None if it is missing or damaged."""
    try:
        size = path.stat().st_size - _CHECKSUM_BYTES
        with path.open("rb") as file:
            file.seek(size)
            if file.read() != _checksum(path, size):
                return None
        vectors: Vectors = np.lib.format.open_memmap(path, mode="c")  # changes would stay in memory
    except (OSError, ValueError):
        return None
    return vectors


def _checksum(path: Path, size: int) -> bytes:
    value = 0
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(size, _CHUNK))):
            value, size = zlib.crc32(chunk, value), size - len(chunk)
    return value.to_bytes(_CHECKSUM_BYTES, "little")
