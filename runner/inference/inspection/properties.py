"""What a cell may track: properties of a text at each of its characters, as known once that character has been read.

All are computed by array arithmetic over the characters, from the text alone: no model, no annotation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from runner.common.errors import unknown

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# literals of Python by their quotes, and comments; what is left open ends with its line, or with the text
_PYTHON = re.compile(
    r"""(?P<comment>\#[^\n]*)"""
    r"""|(?P<long>\"{3}|'{3})(?:\\[\s\S]|(?!(?P=long))[\s\S])*(?:(?P=long))?"""
    r"""|(?P<short>["'])(?:\\.|(?!(?P=short))[^\\\n])*(?:(?P=short))?"""
)


class Characters:
    """The N characters of a text, and marks among them that several properties share.

    Args:
        text: not empty; lines end with a line feed.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.all = np.frombuffer(text.encode("utf-32-le"), dtype="<U1")
        self.place = np.arange(len(self.all), dtype=np.int64)

    def any_of(self, characters: str) -> Bools:
        """(N,) whether each is one of these."""
        return np.isin(self.all, list(characters))

    def last(self, marks: Bools) -> Ints:
        """(N,) the place of the last mark so far, this one included; -1 before the first."""
        return np.maximum.accumulate(np.where(marks, self.place, -1))

    def since_blank_line(self, marks: Bools) -> Ints:
        """(N,) how many marks there were since the last blank line (or the begin of the text)."""
        counts = np.concatenate(([0], np.cumsum(marks)))
        return counts[1:] - counts[self.last(self.blank_line) + 1]

    @cached_property
    def newline(self) -> Bools:
        found: Bools = self.all == "\n"
        return found

    @cached_property
    def space(self) -> Bools:
        return np.char.isspace(self.all)

    @cached_property
    def blank_line(self) -> Bools:
        """(N,) true at the end of a line that holds nothing but spaces."""
        before = np.concatenate(([-1], self.last(self.newline)[:-1]))
        return self.newline & (self.last(~self.space) <= before)

    @cached_property
    def column(self) -> Ints:
        """(N,) characters since the line's begin, this one included; 0 at a line's end."""
        return self.place - self.last(self.newline)

    @cached_property
    def python(self) -> tuple[Bools, Bools]:
        """(N,) inside a string (its opening quote read, its closing one not), and inside a comment."""
        string, comment = np.zeros((2, len(self.all)), dtype=np.bool_)
        for found in _PYTHON.finditer(self.text):
            start, end = found.span()
            if found["comment"] is not None:
                comment[start:end] = True
                continue
            quote = found["long"] or found["short"]
            closed = end - start >= 2 * len(quote) and found[0].endswith(quote)
            string[start + len(quote) - 1 : end - 1 if closed else end] = True
        return string, comment


def _quotes(c: Characters) -> Ints:
    straight = c.since_blank_line(c.any_of('"')) % 2
    curly = c.since_blank_line(c.any_of("“")) > c.since_blank_line(c.any_of("”"))
    return np.maximum(straight, curly)


def _depth(c: Characters, brackets: Bools, start: Bools) -> Ints:
    """Open less closed brackets, never below 0, and 0 again at each `start`."""
    steps = np.where(brackets & c.any_of("([{"), 1, 0) - np.where(brackets & c.any_of(")]}"), 1, 0)
    steps = np.where(start, -len(c.all) - 1, steps)  # more than can be open
    walked: Ints = np.cumsum(steps)
    return walked - np.minimum(np.minimum.accumulate(walked), 0)


def _python_depth(c: Characters) -> Ints:
    """A statement at a line's begin stands in no bracket, whatever an odd line before it has left open."""
    statement = (c.column == 1) & (np.char.isalpha(c.all) | c.any_of("@_"))
    return _depth(c, ~(c.python[0] | c.python[1]), statement)


def _indentation(c: Characters) -> Ints:
    line = c.last(c.newline)
    leading = c.space & ~c.newline & (c.last(~c.space) <= line)
    counts = np.concatenate(([0], np.cumsum(leading)))
    return counts[1:] - counts[line + 1]


def _word_position(c: Characters) -> Ints:
    return c.place - c.last(~np.char.isalnum(c.all))


@dataclass(frozen=True)
class Property:
    """A number for each character of a text.

    Attributes:
        told: what it is, in words.
        of: the function.
        yes_or_no: it is 0 or 1.
    """

    told: str
    of: Callable[[Characters], npt.NDArray[np.generic]]
    yes_or_no: bool


PROPERTIES = {
    "quotes": Property("inside double quotes, anew after a blank line", _quotes, True),
    "line_position": Property("characters since the line's begin", lambda c: c.column, False),
    "newline": Property("just after a line's end", lambda c: c.newline, True),
    "blank_line": Property("just after a blank line", lambda c: c.blank_line, True),
    "depth": Property(
        "brackets ([{ that are open, anew after a blank line",
        lambda c: _depth(c, np.ones_like(c.newline), c.blank_line),
        False,
    ),
    "indentation": Property("spaces at the begin of this line, so far", _indentation, False),
    "word_position": Property("letters and digits since the word's begin", _word_position, False),
    "space": Property("just after white space", lambda c: c.space, True),
    "capital": Property("just after a capital letter", lambda c: np.char.isupper(c.all), True),
    "digit": Property("just after a digit", lambda c: np.char.isdigit(c.all), True),
    "python_string": Property("inside a string of Python", lambda c: c.python[0], True),
    "python_comment": Property("inside a comment of Python", lambda c: c.python[1], True),
    "python_depth": Property("brackets that are open in Python, none of strings or comments", _python_depth, False),
}
DEFAULT = tuple(name for name in PROPERTIES if not name.startswith("python_"))


def chosen(names: str | None) -> tuple[str, ...]:
    """The properties that a list with commas names: `all`, or by default all but those of Python.

    Raises:
        HydromelError: one is unknown.
    """
    if names is None:
        return DEFAULT
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted or [names]:
        if name not in PROPERTIES and name != "all":
            raise unknown("feature", name, [*PROPERTIES, "all"], "--feature")
    return tuple(PROPERTIES) if "all" in wanted else tuple(dict.fromkeys(wanted))


def table(text: str, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """(N, F) the properties of each character."""
    characters = Characters(text)
    columns = [PROPERTIES[name].of(characters).astype(np.float64) for name in names]
    return np.stack(columns, axis=1)
