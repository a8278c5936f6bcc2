"""Commands in children of this process, which has imported everything: a case takes a fraction of a second.

A child has limits of time and memory, so that a hang, a crash or a bomb ends the case and not the campaign.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

SECONDS = 60.0  # of a child; far more than any case takes on a busy machine
MEMORY = 2 * 2**30  # bytes of address space that a child may add to those of its parent
LONGEST_LINE = 1500  # characters: more is a value quoted whole
_TRACEBACK = "Traceback (most recent call last)"
_UNCAUGHT = 70  # exit code of a child that raised
_NOT_PRINTED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_SHARING = 12  # cases that share a child

Work = Callable[[], object]
Faults = list[tuple[str, str]]  # the kind of each, and what happened


@dataclass(frozen=True)
class Ending:
    """The end of a child: its exit code (None: it hung; negative: the signal that ended it) and its output."""

    code: int | None
    output: str

    @property
    def fault(self) -> str | None:
        """Return the kind of fault: `hang`, `crash`, `traceback` or `unreadable`; None for exit codes 0, 1 and 130."""
        if self.code is None:
            return "hang"
        if self.code < 0:
            return "crash"
        if self.code not in (0, 1, 130) or _TRACEBACK in self.output:
            return "traceback"
        lines = self.output.splitlines()
        if any(len(line) > LONGEST_LINE for line in lines) or _NOT_PRINTED.search(self.output):
            return "unreadable"
        return "unreadable" if self.code == 1 and not lines else None

    @property
    def last_line(self) -> str:
        """Return the last line of the output, shortened, or how the child ended."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return ascii(lines[-1][:300])[1:-1] if lines else f"no output, code {self.code}"


class Tried(NamedTuple):
    """A case that is prepared: its title, its work, and a function that returns further faults once it has ended."""

    title: str
    work: Work
    check: Callable[[Ending], Faults]


Case = Callable[[], Tried]  # it can be called again, with the same effect


def call(work: Work, *, seconds: float = SECONDS, memory: int = MEMORY, file_size: int | None = None) -> Ending:
    """Run `work`, which may return or exit with a code, in a child and return how that ended.

    Args:
        file_size: bytes that a file of the child may have, as on a full disk; None: no limit.
    """
    return Child(work, memory=memory, file_size=file_size).ending(seconds)


class Child:
    """A child that runs. See `call`."""

    def __init__(self, work: Work, *, memory: int = MEMORY, file_size: int | None = None) -> None:
        self._output, output = os.pipe()  # not a file, which a limit of its size would cut
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(work, output, memory, file_size)
        os.close(output)

    def ending(self, seconds: float = SECONDS) -> Ending:
        """Wait for the child, and kill it, and all that it started, when its time is over."""
        ended, pieces, deadline = os.pidfd_open(self.pid), list[bytes](), time.monotonic() + seconds
        watched = [self._output, ended]
        while ready := select.select(watched, [], [], max(0.0, deadline - time.monotonic()))[0]:
            if self._output not in ready:  # it has ended, and all that it wrote is read
                break
            pieces.append(os.read(self._output, 2**20))
            if not pieces[-1]:
                watched = [ended]
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        os.close(ended)
        os.close(self._output)
        output = b"".join(pieces).decode(errors="replace")
        return Ending(os.waitstatus_to_exitcode(status) if ready else None, output)


def _be_child(work: Work, output: int, memory: int, file_size: int | None) -> NoReturn:
    code = _UNCAUGHT
    try:
        _limit(output, memory)
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        code = _exit_code(work)
    finally:
        os._exit(code)


def _limit(output: int, memory: int) -> None:
    """Make this process one of its own group, without input, with its output in a file and limits of its memory."""
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # new objects: those of the parent remember whether their own files can seek
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _exit_code(work: Work) -> int:
    """Return the exit code of a process that does this work, once its output is written."""
    code = _UNCAUGHT
    try:
        result = work()
        code = result if isinstance(result, int) else 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def try_each(cases: Sequence[Case], seconds: float = SECONDS) -> Iterator[tuple[str, Faults]]:
    """Yield the title and the faults of each case.

    Several cases in turn share a child, since to start and to end one takes as long as a case. One with a fault is
    tried again in a child of its own, which decides.
    """
    left, suspect = list(cases), False
    while left:
        with closing(_in_one_child(left[: 1 if suspect else _SHARING], seconds)) as results:
            for title, faults in results:
                if faults and not suspect:
                    suspect = True
                    break
                yield title, faults
                left, suspect = left[1:], False


def _in_one_child(cases: Sequence[Case], seconds: float) -> Generator[tuple[str, Faults], None, None]:
    """Yield the title and the faults of cases that one child tries in turn, up to one that ends the child."""
    output = os.memfd_create("output")
    reports, ours = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _limit(output, MEMORY)
            with os.fdopen(ours, "w") as file:
                for case in cases:
                    _try(case, output, file)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.close(ours)
    lines, tried = _lines(reports, seconds), 0
    try:
        for line in lines:
            title = json.loads(line)
            faults = next(lines, None)
            if faults is None:
                if not select.select([reports], [], [], 0)[0]:
                    yield title, [("hang", Ending(None, _text(output)).last_line)]
                    return
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                yield title, [("crash", f"exit status {code}, after: {Ending(code, _text(output)).last_line}")]
                return
            yield title, [(kind, what) for kind, what in json.loads(faults)]
            tried += 1
        if tried < len(cases):
            ended = os.waitpid(pid, os.WNOHANG)
            how = f"its child ended, {ended}" if ended[0] else f"it took longer than {seconds:.0f} s"
            raise AssertionError(
                f"case {tried + 1} of {len(cases)} could not be prepared ({how}), after: {_text(output)}"
            )
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(reports)
        os.close(output)


def _try(case: Case, output: int, report: TextIO) -> None:
    tried = case()
    print(json.dumps(tried.title), file=report, flush=True)
    os.ftruncate(output, 0)
    os.lseek(output, 0, os.SEEK_SET)
    code = _exit_code(tried.work)
    ending = Ending(code, _text(output))
    own = [(ending.fault, ending.last_line)] if ending.fault else []
    print(json.dumps([*own, *tried.check(ending)]), file=report, flush=True)


def _text(output: int) -> str:
    return os.pread(output, os.fstat(output).st_size, 0).decode(errors="replace")


def _lines(file: int, seconds: float) -> Iterator[str]:
    """Yield the lines of a pipe, up to its end or until none comes for some seconds."""
    rest = b""
    while select.select([file], [], [], seconds)[0] and (piece := os.read(file, 2**16)):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode() for line in lines)


def command(main: Callable[[], object], *arguments: str) -> Work:
    """Return work that runs a command with its arguments, as its console script does."""

    def work() -> object:
        sys.argv = ["hydromel", *arguments]
        return main()

    return work


def in_turn(works: Sequence[Work]) -> Work:
    """Return work that does several things, up to the first that ends with another code than 0."""

    def work() -> object:
        return next((code for work in works if (code := work())), 0)

    return work
