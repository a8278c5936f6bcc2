"""Span schemes as data: one table of letters, and what follows from it about neighbouring tags.

A tag is `O`, or a letter and a type: `B-PER`, in the schemes with a suffix `PER-B`, or the letter alone if all spans
are of one type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Final, Literal, get_args

import numpy as np

from runner.common.arrays import BoolArray
from runner.common.errors import HydromelError

Scheme = Literal[
    "IOB1",
    "IOB2",
    "IOE1",
    "IOE2",
    "IOBES",
    "BILOU",
    "BMES",
    "BMEWO",
    "IOB1-suffix",
    "IOB2-suffix",
    "IOE1-suffix",
    "IOE2-suffix",
    "IOBES-suffix",
    "BILOU-suffix",
    "BMES-suffix",
    "BMEWO-suffix",
]
AUTO: Final = "auto"
SpanScheme = Scheme | Literal["auto"] | None  # auto: worked out from the training set; None: plain tags
Mode = Literal["default", "strict"]

OUTSIDE, BEGIN, INSIDE, END, SINGLE, MALFORMED = range(6)  # roles of tags
ROLES = {"B": BEGIN, "I": INSIDE, "M": INSIDE, "E": END, "L": END, "S": SINGLE, "U": SINGLE, "W": SINGLE}
FIRST, INNER, LAST, ONLY = range(4)  # positions of tokens in their span


@dataclass(frozen=True)
class Neighbours:
    """The roles that neighbouring tags may have, as masks over the numbers of roles."""

    start: BoolArray  # (6,) roles of a row's first tag
    follow: BoolArray  # (2, 6, 6) roles of two tags in a row, first for different types, then for the same
    end: BoolArray  # (6,) roles of a row's last tag


@dataclass(frozen=True)
class Layout:
    """The letters of a scheme."""

    letters: str  # letters for the first, an inner, the last and the only token of a span
    sparse: bool = False  # a letter other than the inner one is written only where two spans of one type touch
    suffixed: bool = False  # the letter follows the type: PER-B

    @property
    def used(self) -> str:
        """The distinct letters."""
        return "".join(dict.fromkeys(self.letters))

    @property
    def mark(self) -> int | None:
        """The role of the letter between two spans that touch: BEGIN of the second, or END of the first."""
        if not self.sparse:
            return None
        return BEGIN if self.letters[FIRST] != self.letters[INNER] else END

    def roles(self, *positions: int) -> list[int]:
        """Return the roles of the letters that tokens in these positions may have."""
        sparse = self.letters[INNER] * self.sparse
        return sorted({ROLES[letter] for letter in sparse + "".join(self.letters[place] for place in positions)})

    def tag(self, letter: str, kind: str) -> str:
        """Return the tag of a letter and a type (empty: the tags have none)."""
        if not kind:
            return letter
        return f"{kind}-{letter}" if self.suffixed else f"{letter}-{kind}"

    @cached_property
    def neighbours(self) -> Neighbours:
        """The tags that may be neighbours, worked out from all pairs of neighbouring tokens."""
        start, follow, end = np.zeros(6, np.bool_), np.zeros((2, 6, 6), np.bool_), np.zeros(6, np.bool_)
        # A token is outside, or has a position in its span; at the mark of a sparse scheme the span touches another.
        tokens: list[tuple[int | None, bool]] = [(None, False), *product(range(4), (False, True))]
        for before, after, same in product(tokens, tokens, (False, True)):
            if before[0] in (FIRST, INNER):
                fits = same and after[0] in (INNER, LAST)
            else:
                touches = same and None not in (before[0], after[0])
                at_mark = {BEGIN: after, END: before}.get(self.mark or OUTSIDE)
                fits = after[0] in (None, FIRST, ONLY) and (at_mark is None or at_mark[1] == touches)
            if fits:
                follow[int(same), self._role(*before), self._role(*after)] = True
        for token in tokens:
            start[self._role(*token)] |= token[0] in (None, FIRST, ONLY) and not (token[1] and self.mark == BEGIN)
            end[self._role(*token)] |= token[0] in (None, LAST, ONLY) and not (token[1] and self.mark == END)
        return Neighbours(start, follow, end)

    def _role(self, position: int | None, touches: bool) -> int:
        if position is None:
            return OUTSIDE
        return ROLES[self.letters[position if touches or not self.sparse else INNER]]


_SUFFIX = "-suffix"
_PLAIN = {  # letters of a first, inner, last and only token
    "IOB1": Layout("BIIB", sparse=True),
    "IOB2": Layout("BIIB"),
    "IOE1": Layout("IIEE", sparse=True),
    "IOE2": Layout("IIEE"),
    "IOBES": Layout("BIES"),
    "BILOU": Layout("BILU"),
    "BMES": Layout("BMES"),
    "BMEWO": Layout("BMEW"),
}
SCHEMES: dict[Scheme, Layout] = {
    name: replace(_PLAIN[name.removesuffix(_SUFFIX)], suffixed=name.endswith(_SUFFIX)) for name in get_args(Scheme)
}


def as_scheme(scheme: str, option: str = "span_scheme") -> Scheme:
    """Return the value of an option as a `Scheme`; raise HydromelError if there is none of this name."""
    for known in SCHEMES:
        if scheme == known:
            return known
    raise HydromelError(
        f"{option}='{scheme}'; use one of {', '.join(_PLAIN)}, one of them with {_SUFFIX} (PER-B), or "
        "null (configs/task/tag.yaml)"
    )


def headline_mode(scheme: Scheme) -> Mode:
    """Return the mode of the headline figures: strict for schemes with a letter of their own for single tokens.

    The default mode is that of conlleval and of published figures in the others. Here it would accept some wrong
    predictions.
    """
    return "strict" if SINGLE in SCHEMES[scheme].roles(ONLY) else "default"


def all_tags(types: Sequence[str], scheme: Scheme) -> list[str]:
    """Return `O`, then every letter of `scheme` for the first type, for the second, ..."""
    layout = SCHEMES[scheme]
    return ["O", *(layout.tag(letter, kind) for kind in types for letter in layout.used)]
