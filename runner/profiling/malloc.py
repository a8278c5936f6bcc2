"""The way in which glibc's allocator handles large blocks that are freed."""

from __future__ import annotations

import ctypes
import platform

from runner.config.schema import Malloc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_MMAP_THRESHOLD, _NEVER = 2**30, 2**31 - 1


def choose_malloc(which: Malloc) -> str:
    """Have freed memory kept for the next update, or as glibc does, returned. Nothing changes when it is called again.

    glibc maps blocks of 32 MiB and more anew each time and gives the end of its heap back, and the system clears every
    page at its first touch: a third of the time of an update with a large vocabulary (docs/notes/performance.md). A
    process
    that keeps its memory is at least as large as its peak, and larger at first: free blocks have to grow together
    before they fit.

    Returns:
        What holds from now on, for records: `keep`, or `return`, also where there is no glibc.
    """
    if which == "keep" and platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        done = mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _NEVER)
        return "keep" if done else "return"
    return "return"
