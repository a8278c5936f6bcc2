"""The memory of this machine that a process can still take."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_SYSTEM, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # of Linux; the group is that of a container


def available_bytes(system: Path = _SYSTEM, group: Path = _GROUP) -> int | None:
    """Return the bytes that are free or can be freed, within the limit of the container, if any; None: not known.

    Linux grants more memory than there is, and kills the process that uses it. So a lack of memory must be found
    before it happens.
    """
    known = []
    with contextlib.suppress(OSError):
        if found := re.search(r"^MemAvailable:\s+(\d+) kB$", system.read_text(), re.MULTILINE):
            known.append(1024 * int(found[1]))
    with contextlib.suppress(OSError, ValueError):  # without a limit the file says `max`
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        found = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        known.append(max(0, limit - used + (int(found[1]) if found else 0)))
    return min(known, default=None)
