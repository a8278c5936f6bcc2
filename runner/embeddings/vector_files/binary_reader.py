"""Sequential reading of a memory-mapped binary file, without copying it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from runner.common.errors import HydromelError

Scalar = TypeVar("Scalar", bound=np.generic)


def map_file(path: Path) -> mmap.mmap:
    """Map a file into memory, so that bytes are read when they are accessed.

    The map is closed when the last array that views it is garbage-collected.
    """
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


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
