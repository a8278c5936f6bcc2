"""The options, error messages and exit codes that commands share."""

from __future__ import annotations

import argparse
import logging
import math
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from runner.common.errors import HydromelError, missing_kernel, no_kernel, out_of_memory, ran_out
from runner.terminal.console import show_messages
from runner.terminal.interruption import interruption

log = logging.getLogger(__name__)

FULL_ERROR = "HYDRA_FULL_ERROR"
_LONGEST_WORD = 400  # most characters of a word in an error message
_LONGEST_LINE = 1200  # most characters of the whole message
CLOSED_PIPE = 128 + 13  # the exit code of a program that SIGPIPE ends


class Parser(argparse.ArgumentParser):
    """A parser with one-line errors and without abbreviated flags, which prints its examples (`epilog`) unchanged."""

    def __init__(self, *, prog: str, description: str, epilog: str | None = None) -> None:
        form = argparse.RawDescriptionHelpFormatter
        self.arguments: list[argparse.Action] = []  # all that were added to the parser itself
        super().__init__(prog, description=description, epilog=epilog, formatter_class=form, allow_abbrev=False)
        self.register("type", Path, _path)  # the parser of type=Path, also in groups of arguments

    def add_argument(self, *names: str, **options: Any) -> argparse.Action:
        """Add an argument, with its default at the end of its help if that is a number or text."""
        default, text = options.get("default"), options.get("help", "")
        known = type(default) in (int, float, str) and default not in ("", argparse.SUPPRESS)
        shown = f"{text} (default: %(default)s)" if known and "%(default)" not in text else text
        action = super().add_argument(*names, **options | {"help": shown})
        self.arguments.append(action)
        return action

    def add_count(
        self, flag: str, help: str, default: int | None = None, least: int = 1, most: int | None = None, why: str = ""
    ) -> None:
        """Add a flag that takes a whole number; the last arguments are those of `whole`."""
        self.add_argument(flag, type=whole(least, most, why), default=default, metavar="N", help=help)

    def error(self, message: str) -> NoReturn:
        """Raise HydromelError with a hint at the help, instead of printing the usage and exiting with 2."""
        raise HydromelError(f"{message}; see {self.prog} --help")


def _path(text: str) -> Path:
    """Return a path in which `~` is the home directory, which a shell leaves in `--out=~/x`."""
    return Path(os.path.expanduser(text))


def whole(least: int, most: int | None = None, why: str = "") -> Callable[[str], int]:
    """Return a parser of whole numbers from `least` to `most`, for `add_argument(type=...)`.

    The message for a number above `most` ends with the reason `why`.
    """

    def whole_number(text: str) -> int:
        if text.isascii() and text.isdigit() and least <= int(text) and (most is None or int(text) <= most):
            return int(text)
        bounds = f"from {least}" if most is None else f"from {least} to {most}"
        too_many = most is not None and text.isascii() and text.isdigit() and len(text) < 9 and int(text) > most
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number {bounds}{why if too_many else ''}")

    return whole_number


def number(above: float | None, most: float | None = None) -> Callable[[str], float]:
    """Return a parser of finite numbers above `above` and at most `most`, for `add_argument(type=...)`."""

    def bounded(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and (above is None or value > above) and (most is None or value <= most):
            return value
        bounds = [] if above is None else [f"above {above:g}"]
        bounds += [] if most is None else [f"at most {most:g}"]
        raise argparse.ArgumentTypeError(f"'{text}' is not a number {' and '.join(bounds)}".rstrip())

    return bounded


def exit_code(work: Callable[[], int]) -> int:
    """Run `work` and return its exit code: 1 after one line of error, 130 if interrupted, 141 if the pipe closed."""
    try:
        show_messages()
        interruption.heed()
        return work()
    except HydromelError as error:
        return failed(str(error))
    except (RuntimeError, MemoryError) as error:
        if missing := missing_kernel(error):
            return failed(no_kernel(missing))
        if not ran_out(error):
            raise
        return failed(out_of_memory(error))
    except BrokenPipeError:
        return CLOSED_PIPE
    except KeyboardInterrupt:
        log.error("interrupted")
        return 130


def _cut(word: str) -> str:
    return word if len(word) <= _LONGEST_WORD else f"{word[:_LONGEST_WORD]}..."


def failed(line: str) -> int:
    """Log one line of error and return the exit code. HYDRA_FULL_ERROR=1 logs the traceback before it.

    A word of more than `_LONGEST_WORD` characters, such as the path of a file, is cut, and so is the middle of a line
    of more than `_LONGEST_LINE`.
    """
    if os.environ.get(FULL_ERROR) == "1":
        log.error(traceback.format_exc())
    words = " ".join(map(_cut, line.split()))
    cut = words if len(words) <= _LONGEST_LINE else f"{words[: _LONGEST_LINE // 2]} ... {words[-_LONGEST_LINE // 2 :]}"
    log.error("error: %s", cut)
    return 1
