"""Integer columns on disk: built block by block, kept in one file with a SHA-256, and mapped into memory.

A file has the places of its arrays as JSON and a header, each after its size, then the arrays, which start at multiples
of 64 bytes, then the SHA-256 of all before. Processes that map the same file share its pages.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
import torch

from runner.common.errors import HydromelError
from runner.common.files import cache_folder, cannot_write, write_chunks
from runner.common.hashes import LARGE_BYTES, file_sha256, remember
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.blocks import new_file

Array = npt.NDArray[np.generic]
_ALIGNMENT, _DIGEST_BYTES, _CHUNK_BYTES = 64, 32, 2**24


class _Digest(Protocol):
    """A hash of `hashlib`."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class Column:
    """An array that grows at its end; a large one is in a file without a name."""

    def __init__(self) -> None:
        self._parts: list[Array] = []
        self._file: BinaryIO | None = None
        self._n_bytes = 0

    def append(self, values: Array) -> None:
        """Append values of the same type; raises HydromelError if the disk is full."""
        self._n_bytes += values.nbytes
        self._parts.append(values)
        if values.ndim > 1 or self._n_bytes < LARGE_BYTES:
            return
        try:
            self._file = self._file or new_file(self)
            for part in self._parts:
                self._file.write(np.ascontiguousarray(part).data)
        except OSError as error:
            raise cannot_write(cache_folder(), error) from error
        self._parts = [self._parts[-1][:0]]

    def array(self) -> Array:
        """Return all values, (N,) or (B, K). Sets of labels (B, K) are filled up with -1 to the largest K."""
        if self._file is not None:
            self._file.flush()
            return np.memmap(self._file, self._parts[0].dtype, mode="r")
        if self._parts[0].ndim == 2 and len({part.shape[1] for part in self._parts}) > 1:
            widest = max(part.shape[1] for part in self._parts)
            fill = [((0, 0), (0, widest - part.shape[1])) for part in self._parts]
            return np.concatenate(
                [np.pad(part, own, constant_values=-1) for part, own in zip(self._parts, fill, strict=True)]
            )
        return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)


class SplitColumns:
    """The columns of a split, from blocks of its rows.

    Args:
        is_text: the split is one text (`Task.carries_state`): the rows of all blocks are one row.
    """

    def __init__(self, is_text: bool) -> None:
        self._is_text, self._columns, self._left_out = is_text, dict[str, Column](), 0

    def append(self, batch: Batch, first_row: int) -> None:
        """Append a block, the first row of which has the number `first_row` in the split."""
        columns = {f"features/{name}": feature.values.numpy() for name, feature in batch.features.items()}
        if isinstance(batch.target, Ragged):
            columns["target_per_token"] = _narrow(batch.target)
        else:
            columns["target_per_row"] = batch.target.numpy()
        if batch.cut is not None:
            columns |= {"cut_lengths": batch.cut.rows.host_lengths, "cut_targets": _narrow(batch.cut)}
        columns |= {"lengths": batch.rows.host_lengths, "index": batch.index + first_row}
        for name, values in columns.items():
            self._columns.setdefault(name, Column()).append(values)
        self._left_out += batch.left_out

    def arrays(self) -> dict[str, Array]:
        """Return all columns by name, see `batch_of`."""
        arrays = {name: column.array() for name, column in self._columns.items()}
        if self._is_text:
            arrays |= {"lengths": np.array([arrays["lengths"].sum()]), "index": np.zeros(1, dtype=np.int64)}
        return arrays


def _narrow(target: Ragged) -> Array:
    """Return targets per token in 32 bits, as the ids of features are."""
    values: Array = target.values.numpy().astype(np.int32)
    return values


def batch_of(columns: Mapping[str, Array], prefix: str) -> Batch:
    """Return the split whose columns have names with this prefix."""
    arrays = {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}
    device = torch.device("cpu")
    rows = Rows(arrays["lengths"].astype(np.int64, copy=False), device)
    features = {
        name.removeprefix("features/"): Ragged(_tensor(values), rows, "packed")
        for name, values in arrays.items()
        if name.startswith("features/")
    }
    target: torch.Tensor | Ragged
    if "target_per_token" in arrays:
        target = Ragged(_tensor(arrays["target_per_token"]), rows, "packed")
    else:
        target = _tensor(arrays["target_per_row"])
    cut = None
    if "cut_targets" in arrays:
        cut_rows = Rows(arrays["cut_lengths"].astype(np.int64, copy=False), device)
        cut = Ragged(_tensor(arrays["cut_targets"]), cut_rows, "packed")
    return Batch(features, target, arrays["index"].astype(np.int64, copy=False), cut=cut)


def _tensor(values: Array) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # mapped columns are only read
        return torch.from_numpy(values)


def write_columns(path: Path, header: bytes, arrays: Mapping[str, Array]) -> None:
    """Write a file with a header and arrays; raises HydromelError if it cannot be written."""
    digest = hashlib.sha256()
    write_chunks(path, _chunks(header, arrays, digest))
    if path.stat().st_size >= LARGE_BYTES:
        remember(path, digest.hexdigest(), _DIGEST_BYTES)


def _chunks(header: bytes, arrays: Mapping[str, Array], digest: _Digest) -> Iterator[bytes | memoryview]:
    places, end = {}, 0
    for name, values in arrays.items():
        places[name] = {"dtype": values.dtype.str, "shape": values.shape, "start": end}
        end += _aligned(values.nbytes)
    parts = [_sized(json.dumps(places).encode()), _sized(header)]
    start = sum(map(len, parts))
    yield _hashed(b"".join([*parts, bytes(_aligned(start) - start)]), digest)
    for values in arrays.values():
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        for at in range(0, len(flat), _CHUNK_BYTES):
            yield _hashed(flat[at : at + _CHUNK_BYTES].data, digest)
        yield _hashed(bytes(_aligned(len(flat)) - len(flat)), digest)
    yield digest.digest()


def _sized(content: bytes) -> bytes:
    return len(content).to_bytes(8, "little") + content


def _hashed(chunk: bytes | memoryview, digest: _Digest) -> bytes | memoryview:
    digest.update(chunk)
    return chunk


def _aligned(size: int) -> int:
    return size + -size % _ALIGNMENT


def read_columns(path: Path) -> tuple[bytes, dict[str, Array]] | None:
    """Return the header and the arrays of a file, or None if there is none or it is damaged.

    The arrays of a large file are mapped, and its hash is computed once. Raises HydromelError if it cannot be read.
    """
    try:
        size = path.stat().st_size
        if size >= LARGE_BYTES:
            with path.open("rb") as file:
                file.seek(size - _DIGEST_BYTES)
                if file.read() != bytes.fromhex(file_sha256(path, _DIGEST_BYTES)):
                    return None
                content: bytearray | mmap.mmap = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            content = bytearray(path.read_bytes())
            if hashlib.sha256(content[:-_DIGEST_BYTES]).digest() != content[-_DIGEST_BYTES:]:
                return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HydromelError(f"{path} could not be read ({error.strerror}); use cache_dir=null for no cache") from error
    parts, at = [], 0
    for _ in ("places", "header"):
        size = int.from_bytes(content[at : at + 8], "little")
        parts.append(bytes(content[at + 8 : at + 8 + size]))
        at += 8 + size
    arrays, start = {}, _aligned(at)
    for name, place in json.loads(parts[0]).items():
        count = int(np.prod(place["shape"]))
        values = np.frombuffer(content, place["dtype"], count, start + place["start"]) if count else np.zeros(0)
        arrays[name] = values.astype(place["dtype"], copy=False).reshape(place["shape"])
    return parts[1], arrays
