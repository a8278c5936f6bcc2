"""A lock for the building of a cache file: of processes that need the same data, one reads it and the others wait."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from runner.common.files import CannotWrite, cannot_write
from runner.terminal.progress import JOB

log = logging.getLogger(__name__)
_PROBE_SECONDS = 0.5  # small data are read sooner, and need no message
_MOST_CHARACTERS = 200  # of the holder's own words
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def building(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a cache file within the context, which looks for the file once more and then writes it.

    `what` names the data, for the message of a process that waits. The lock ends with its process, however that ends.

    Raises:
        CannotWrite: the folder of the cache, or within the context a file of it, cannot be written.
    """
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    holder = path.with_name(f"{path.name}.holder")
    try:
        with contextlib.ExitStack() as held:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(_acquired(lock, holder, what))
                holder.write_text(_this_process(), encoding="utf-8")
                held.callback(_remove, holder)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise cannot_write(path.parent, error) from error
                log.warning("warning: %s has no file locks: other runs may read the same data", path.parent)
            yield
    except CannotWrite as error:
        raise CannotWrite(f"{error}; make room there, or give cache_dir=FOLDER (cache_dir=null: no cache)") from error


def _acquired(lock: FileLock, holder: Path, what: str) -> contextlib.AbstractContextManager[object]:
    try:
        return lock.acquire(timeout=_PROBE_SECONDS)
    except Timeout:
        other = "another process"
        with contextlib.suppress(OSError, UnicodeDecodeError):  # it may just have begun, or ended
            other = holder.read_text(encoding="utf-8")[:_MOST_CHARACTERS] or other
        log.info("%s is being read by %s; waiting for the cache", what, other)
        return lock.acquire()


def _this_process() -> str:
    job = os.environ.get(JOB)
    return f"{f'{job}, ' if job else ''}process {os.getpid()} on {platform.node()}"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
