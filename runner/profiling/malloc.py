"""The handling of large freed blocks by glibc's allocator."""

from __future__ import annotations

import ctypes
import platform

from runner.config.schema import Malloc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # constants of malloc.h
_LARGEST_OF_GLIBC = 2**25  # the size from which on glibc itself always maps blocks anew
_LARGEST_MMAP_THRESHOLD, _NEVER = 2**30, 2**31 - 1


def growth(which: Malloc, n_targets: int, rows: int) -> str | None:
    """Return a line for scores (rows, n_targets) in float32 so large that kept memory may grow to a multiple."""
    size = 4 * n_targets * rows
    if which == "return" or platform.libc_ver()[0] != "glibc" or size < _LARGEST_OF_GLIBC:
        return None
    return (
        f"malloc=keep: {n_targets:,} targets make blocks of {size >> 20} MiB, which may take several times the memory "
        "of malloc=return"
    )


def choose_malloc(which: Malloc) -> str:
    """Keep freed memory for the next update, or return it to the system as glibc does. Idempotent.

    Returns:
        The behaviour from now on: `keep`, or `return`, also without glibc.
    """
    # glibc maps each block of 32 MiB or more anew and returns the end of its heap, and the system clears every page at
    # its first touch: a third of the time of an update with a large vocabulary (docs/notes/performance.md). A process
    # that keeps its memory never shrinks below its peak, and is larger at first, until free blocks have merged.
    if which == "keep" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        done = mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _NEVER)
        return "keep" if done else "return"
    return "return"
