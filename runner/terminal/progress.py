"""Bars on a terminal that show how far long work has come: `with stage(...)` and `for item in track(...)`.

They are off until a command calls `show_progress`, and stay off if its output is no terminal. A bar costs whoever works
next to nothing: a thread of its own reads, a few times per second, the numbers that the work leaves in a `Stage`.
Messages are printed above the bars (`runner.terminal.console`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
JOB = "HYDROMEL_JOB"  # environment variable of a sweep's job: its place in the sweep, such as `job 3/8`
_WIDE = 110  # columns of a terminal from which on bars are long
_PERIOD_SECONDS = 0.4  # between two drawings; shorter work shows no bar


@dataclass
class Stage:
    """One bar: how far some work has come. Whoever works changes the fields, and the display reads them."""

    label: str
    total: float | None = None  # None: unknown
    done: float = 0.0
    detail: str = ""  # text behind the bar
    look: Callable[[Stage], None] | None = None  # called before each drawing, in the thread of the display
    started: float = field(default_factory=time.monotonic)


class _Display:
    """The bars of this process: those of all open stages, the outermost on top."""

    def __init__(self) -> None:
        self.is_on = False
        self._lock = threading.RLock()
        self._stages: list[Stage] = []
        self._tasks: dict[int, TaskID] = {}  # by id of the stage
        self._done: dict[int, float] = {}
        self._bars: Progress | None = None  # None while nothing is drawn
        self._closed = threading.Event()

    def open(self, stage: Stage) -> None:
        with self._lock:
            self._stages.append(stage)
            if len(self._stages) == 1:
                self._closed = threading.Event()
                threading.Thread(target=self._draw_until, args=(self._closed,), name="progress", daemon=True).start()

    def close(self, stage: Stage) -> None:
        with self._lock:
            self._stages = [other for other in self._stages if other is not stage]
            task = self._tasks.pop(id(stage), None)
            self._done.pop(id(stage), None)
            if self._bars is not None and task is not None:
                self._bars.remove_task(task)
            if not self._stages:
                self._closed.set()
                self._erase()

    def print(self, line: str, file: TextIO) -> bool:
        """Print a line above the bars and return True; False if `file` is no terminal or there is no bar."""
        with self._lock:
            if self._bars is None or not file.isatty():
                return False
            self._bars.console.print(line, soft_wrap=True)
            return True

    def forget(self) -> None:
        """Start anew in a forked process, which lacks the thread that draws."""
        if self._bars is not None:
            sys.stdout, sys.stderr = (getattr(file, "rich_proxied_file", file) for file in (sys.stdout, sys.stderr))
        is_on = self.is_on
        self.__init__()  # type: ignore[misc]
        self.is_on = is_on

    def _draw_until(self, closed: threading.Event) -> None:
        while not closed.wait(_PERIOD_SECONDS):
            with self._lock:
                if closed.is_set():
                    return
                self._draw()

    def _draw(self) -> None:
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        for stage in self._stages:
            if stage.look is not None:
                stage.look(stage)
            if id(stage) not in self._tasks:
                if time.monotonic() - stage.started < _PERIOD_SECONDS:
                    continue
                self._tasks[id(stage)] = self._bars.add_task("", detail="")
            task = self._tasks[id(stage)]
            if stage.done < self._done.get(id(stage), 0.0):  # the next of several rounds, such as epochs
                self._bars.reset(task)
            self._done[id(stage)] = stage.done
            self._bars.update(
                task, description=stage.label, total=stage.total, completed=stage.done, detail=stage.detail
            )
        self._bars.refresh()

    def _erase(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars, self._tasks, self._done = None, {}, {}


_display = _Display()
os.register_at_fork(after_in_child=_display.forget)


def show_progress() -> None:
    """Show bars from now on, on stderr, if this is a terminal that can move its cursor.

    Not if stdout is a pipe: the program behind it may write to the same terminal.
    """
    with contextlib.suppress(OSError, ValueError):  # a stream that was closed, or replaced by one without a file
        is_piped = stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
        _display.is_on = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown") and not is_piped


def shows_progress() -> bool:
    """Return True if bars are shown."""
    return _display.is_on


def print_above(line: str, file: TextIO) -> bool:
    """Print a line above the bars and return True; return False if there is no bar, or `file` is no terminal."""
    return _display.print(line, file)


@contextlib.contextmanager
def stage(
    label: str,
    total: float | None = None,
    look: Callable[[Stage], None] | None = None,
    shown: bool = True,
) -> Iterator[Stage]:
    """Show a bar for the work within the context, which adds to `done` of the returned `Stage`.

    Args:
        label: text before the bar.
        total: value of `done` at the end; None: unknown.
        look: function that updates the stage before each drawing, in another thread; it must only read what is known
            on the host.
        shown: False for no bar, while the terminal is used otherwise.
    """
    made = Stage(label, total, look=look)
    if not (_display.is_on and shown):
        yield made
        return
    _display.open(made)
    try:
        yield made
    finally:
        _display.close(made)


def track(
    items: Iterable[T], label: str, total: float | None = None, size: Callable[[T], float] | None = None
) -> Iterable[T]:
    """Return the items, with a bar while they are iterated over.

    Args:
        label: text before the bar.
        total: sum of the items' sizes; None: unknown.
        size: function that returns the size of an item; None: 1 for each.
    """
    return _tracked(items, label, total, size) if _display.is_on else items


def _tracked(items: Iterable[T], label: str, total: float | None, size: Callable[[T], float] | None) -> Iterator[T]:
    with stage(label, total) as bar:
        for item in items:
            yield item
            bar.done += 1 if size is None else size(item)


def show_seconds(bar: Stage) -> None:
    """Set how far work has come whose total is in seconds; a value of `look`."""
    bar.done = time.monotonic() - bar.started


def _new_bars() -> Progress:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    from runner.terminal.rich_tables import PlainConsole

    class Terminal(PlainConsole):
        """A console that keeps its cursor, so that a killed process does not leave a terminal without one."""

        def show_cursor(self, show: bool = True) -> bool:
            return False

    class Times(ProgressColumn):
        """The time until the end or, while that is unknown, since the start."""

        def render(self, task: Task) -> Text:
            left = None if task.total is None else task.time_remaining
            return Text(clock(task.elapsed or 0.0) if left is None else f"eta {clock(left)}", no_wrap=True)

    def text(template: str) -> TextColumn:
        return TextColumn(template, style="", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))

    terminal = Terminal(width=None, file=sys.stderr)
    job = os.environ.get(JOB)
    return Progress(
        *([text(job.replace("{", "{{").replace("}", "}}"))] if job else []),
        text("{task.description}"),
        BarColumn(bar_width=24 if terminal.width >= _WIDE else 12),
        TaskProgressColumn("{task.percentage:>3.0f} %", markup=False),
        Times(),
        text("{task.fields[detail]}"),
        console=terminal,
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )


def clock(seconds: float) -> str:
    """Return a duration as `1:05`, or from an hour on as `2:01:05`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
