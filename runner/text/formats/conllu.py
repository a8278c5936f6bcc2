"""CoNLL-U and CoNLL-U Plus (universaldependencies.org): columns by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from runner.text.formats.base import Parsed
from runner.text.formats.columns import Columns
from runner.text.formats.reader import Passage

STANDARD = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
NO_WORD = r"[0-9]+[-.][0-9]+\t"  # start of the lines of multiword ranges and empty nodes
_HEADER = re.compile(r"#\s*global\.columns\s*=\s*(.*\S)")


def named_in(line: str) -> tuple[str, ...] | None:
    """Return the names of the columns if the line is the header of CoNLL-U Plus, `# global.columns = ID FORM ...`."""
    header = _HEADER.match(line)
    return None if header is None else tuple(header[1].split())


def position(column: str, names: Sequence[str]) -> int | None:
    """Return the position of a column among `names`, whatever the case of its letters; None: there is none."""
    return next((place for place, name in enumerate(names) if name.casefold() == column.casefold()), None)


@dataclass
class ConlluColumns(Columns):
    """A format of treebanks; in CoNLL-U Plus the text's first line names its columns.

    Args:
        by_name: input column -> name of the text's column. The header decides its position, unless the user gave one in
            `columns`.
    """

    by_name: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, by_name: Mapping[str, str]) -> ConlluColumns:
        """Return the format with the positions of CoNLL-U, which a header replaces."""
        return cls("tab", _positions(by_name, STANDARD), "#", None, NO_WORD, by_name)

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        if passage.first == 1 and (names := named_in(passage.lines[0])) is not None:
            standard, own = _positions(self.by_name, STANDARD), _positions(self.by_name, names)
            given = {name: place for name, place in self.columns.items() if standard.get(name) != place}
            self.columns, self.width = {**self.columns, **own, **given}, len(names)
        return super().parse(passage, columns)


def _positions(by_name: Mapping[str, str], names: Sequence[str]) -> dict[str, int]:
    places = {name: position(column, names) for name, column in by_name.items()}
    return {name: place for name, place in places.items() if place is not None}
