"""Reading a mapped binary file from its beginning on, without copying it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.common.errors import HydromelError


def mapped(path: Path) -> mmap.mmap:
    """The file's bytes, read when they are looked at. It is closed when nothing sees it any more, and not before."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Cursor:
    """Where reading stands; numbers are little endian.

    Args:
        path: for messages.
        data: the mapped file.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def values(self, form: str, what: str) -> tuple[Any, ...]:
        """Numbers of the kinds that `form` names, as in `struct`; `what` they are is said where the file ends early."""
        begin = self._advance(struct.calcsize(f"<{form}"), what)
        return struct.unpack_from(f"<{form}", self.data, begin)

    def array(self, dtype: str, count: int, what: str) -> npt.NDArray[Any]:
        """(count,) a view of the file."""
        begin = self._advance(np.dtype(dtype).itemsize * count, what)
        return np.frombuffer(self.data, dtype, count, begin)

    def damaged(self, how: str) -> HydromelError:
        return HydromelError(f"{self.path}: cut off, or damaged: {how}")

    def _advance(self, n_bytes: int, what: str) -> int:
        begin, self.at = self.at, self.at + n_bytes
        if n_bytes < 0 or self.at > len(self.data):
            raise self.damaged(f"{what} should end at byte {self.at:,}, the file has {len(self.data):,}")
        return begin
