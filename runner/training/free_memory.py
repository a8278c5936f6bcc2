"""The memory that is free on this machine, as a limit that a CPU keeps to as a GPU does.

Linux grants any memory that a process asks for, and kills the process when it writes to more than there is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = "0::/"  # begins the line of version 2 in /proc/self/cgroup


@contextmanager
def within_free_memory() -> Iterator[None]:
    """Within the context, a request for more memory than is free fails, as it does on a GPU. Linux only."""
    free = free_bytes()
    if free is None:
        yield
        return
    import resource  # Windows has none

    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([_data_bytes() + free, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def free_bytes() -> int | None:
    """Return the memory, with swap, that this process may still take, also within its control group; None: unknown."""
    if sys.platform != "linux":
        return None
    machine = _figures(Path("/proc/meminfo"))
    free = 1024 * (machine["MemAvailable:"] + machine["SwapFree:"])
    return min([free, *_free_in_groups()])


def _data_bytes() -> int:
    """Return what RLIMIT_DATA counts: the memory of this process that it can write to, and shares with no other."""
    return 1024 * _figures(Path("/proc/self/status"))["VmData:"]


def _free_in_groups() -> Iterator[int]:
    """Yield what is left to each control group around this process that has a limit, as containers and Slurm set it."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    path = next((line.removeprefix(_OWN_GROUP) for line in lines if line.startswith(_OWN_GROUP)), None)
    if path is None:
        return
    for group in (_GROUPS / path, *(_GROUPS / path).parents):
        limit, used = group / "memory.max", group / "memory.stat"
        if group.is_relative_to(_GROUPS) and limit.is_file() and (most := limit.read_text().strip()) != "max":
            yield max(0, int(most) - _figures(used)["anon"])


def _figures(path: Path) -> dict[str, int]:
    """Return the lines `name number ...` of a file of the system."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
