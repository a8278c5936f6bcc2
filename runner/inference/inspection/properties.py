"""Properties that a cell may track: numbers for each character of a text, known once that character has been read.

All are computed by array arithmetic from the characters alone, without a model or annotation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runner.common.arrays import BoolArray, FloatArray, IntArray
from runner.common.errors import unknown

# String literals of Python, and comments. An unclosed literal ends with its line or, with triple quotes, with the text.
_PYTHON = re.compile(
    r"""(?P<comment>\#[^\n]*)"""
    r"""|(?P<long>\"{3}|'{3})(?:\\[\s\S]|(?!(?P=long))[\s\S])*(?:(?P=long))?"""
    r"""|(?P<short>["'])(?:\\.|(?!(?P=short))[^\\\n])*(?:(?P=short))?"""
)


class Characters:
    """The N characters of a text that is not empty, and arrays over them that several properties share."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.all = np.frombuffer(text.encode("utf-32-le"), dtype="<U1")
        self.place = np.arange(len(self.all), dtype=np.int64)

    def any_of(self, characters: str) -> BoolArray:
        """Return (N,), true for each of the given characters."""
        return np.isin(self.all, list(characters))

    def last(self, marks: BoolArray) -> IntArray:
        """Return (N,) the position of the last mark up to and including each character, -1 before the first mark."""
        return np.maximum.accumulate(np.where(marks, self.place, -1))

    def since_blank_line(self, marks: BoolArray) -> IntArray:
        """Return (N,) the number of marks since the last blank line, or since the start of the text."""
        counts = np.concatenate(([0], np.cumsum(marks)))
        return counts[1:] - counts[self.last(self.blank_line) + 1]

    @cached_property
    def newline(self) -> BoolArray:
        """(N,) true at line feeds."""
        marks: BoolArray = self.all == "\n"
        return marks

    @cached_property
    def space(self) -> BoolArray:
        """(N,) true at white space."""
        return np.char.isspace(self.all)

    @cached_property
    def blank_line(self) -> BoolArray:
        """(N,) true at the end of a line that is empty or holds only white space."""
        before = np.concatenate(([-1], self.last(self.newline)[:-1]))
        return self.newline & (self.last(~self.space) <= before)

    @cached_property
    def column(self) -> IntArray:
        """(N,) number of characters since the line's start, this one included; 0 at the line's end."""
        return self.place - self.last(self.newline)

    @cached_property
    def python(self) -> tuple[BoolArray, BoolArray]:
        """(N,) true inside a string (after its opening quote, before its closing one), and (N,) inside a comment."""
        string, comment = np.zeros((2, len(self.all)), dtype=np.bool_)
        for match in _PYTHON.finditer(self.text):
            start, end = match.span()
            if match["comment"] is not None:
                comment[start:end] = True
                continue
            quote = match["long"] or match["short"]
            is_closed = end - start >= 2 * len(quote) and match[0].endswith(quote)
            string[start + len(quote) - 1 : end - 1 if is_closed else end] = True
        return string, comment


def _quotes(c: Characters) -> IntArray:
    straight = c.since_blank_line(c.any_of('"')) % 2
    curly = c.since_blank_line(c.any_of("“")) > c.since_blank_line(c.any_of("”"))
    return np.maximum(straight, curly)


def _depth(c: Characters, counted: BoolArray | bool, start: BoolArray) -> IntArray:
    """Return (N,) the number of `counted` brackets that are open, never below 0, and reset to 0 at each `start`."""
    # A walk that stops at 0 is the free walk minus its running minimum; a step down by more than N resets it.
    steps = np.where(counted & c.any_of("([{"), 1, 0) - np.where(counted & c.any_of(")]}"), 1, 0)
    steps = np.where(start, -len(c.all) - 1, steps)
    walk: IntArray = np.cumsum(steps)
    return walk - np.minimum(np.minimum.accumulate(walk), 0)


def _python_depth(c: Characters) -> IntArray:
    """Return (N,) the bracket depth of Python code, reset at each statement that starts at the first column.

    The reset limits the effect of a malformed line that leaves a bracket open.
    """
    statement = (c.column == 1) & (np.char.isalpha(c.all) | c.any_of("@_"))
    return _depth(c, ~(c.python[0] | c.python[1]), statement)


def _indentation(c: Characters) -> IntArray:
    line = c.last(c.newline)
    leading = c.space & ~c.newline & (c.last(~c.space) <= line)
    counts = np.concatenate(([0], np.cumsum(leading)))
    return counts[1:] - counts[line + 1]


class Property(NamedTuple):
    """A number for each character of a text, and the function that computes it."""

    description: str
    of: Callable[[Characters], npt.NDArray[np.generic]]
    yes_or_no: bool  # the number is 0 or 1


PROPERTIES = {
    "quotes": Property("inside double quotes, reset at a blank line", _quotes, True),
    "line_position": Property("characters since the line's start", lambda c: c.column, False),
    "newline": Property("just after a line's end", lambda c: c.newline, True),
    "blank_line": Property("just after a blank line", lambda c: c.blank_line, True),
    "depth": Property("open brackets ([{, reset at a blank line", lambda c: _depth(c, True, c.blank_line), False),
    "indentation": Property("spaces at the start of this line, so far", _indentation, False),
    "word_position": Property(
        "letters and digits since the word's start", lambda c: c.place - c.last(~np.char.isalnum(c.all)), False
    ),
    "space": Property("just after white space", lambda c: c.space, True),
    "capital": Property("just after a capital letter", lambda c: np.char.isupper(c.all), True),
    "digit": Property("just after a digit", lambda c: np.char.isdigit(c.all), True),
    "python_string": Property("inside a Python string", lambda c: c.python[0], True),
    "python_comment": Property("inside a Python comment", lambda c: c.python[1], True),
    "python_depth": Property("open brackets of Python code, without strings and comments", _python_depth, False),
}
DEFAULT = tuple(name for name in PROPERTIES if not name.startswith("python_"))


def chosen(names: str | None) -> tuple[str, ...]:
    """Parse a comma-separated list of known properties; `all` means all of them, None all but those of Python."""
    if names is None:
        return DEFAULT
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted or [names]:
        if name not in PROPERTIES and name != "all":
            raise unknown("feature", name, [*PROPERTIES, "all"], "--feature")
    return tuple(PROPERTIES) if "all" in wanted else tuple(dict.fromkeys(wanted))


def table(text: str, names: Sequence[str]) -> FloatArray:
    """Return (N, F) the properties of each character."""
    characters = Characters(text)
    return np.stack([PROPERTIES[name].of(characters).astype(np.float64) for name in names], axis=1)
