"""The table of a campaign: what was tried, what survived, and every fault with the way to make it again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

COLUMNS = (
    *("bit-identical", "differs", "lost points", "doubled points", "leftovers", "wrong answers", "tracebacks"),
    *("unreadable", "hangs", "crashes", "harm"),
)
_KIND_OF = {"hang": "hangs", "crash": "crashes", "traceback": "tracebacks", "unreadable": "unreadable"}


@dataclass
class Part:
    """A part of the campaign, such as the killed runs.

    Attributes:
        tried: cases so far.
        faulty: those with at least one fault.
        counts: by column; `bit-identical` counts what is good, the others faults.
        faults: a line for each fault.
    """

    name: str
    tried: int = 0
    faulty: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, title: str, faults: list[tuple[str, str]]) -> None:
        """Add a case: each fault is a column, or the kind of fault of an `Ending`, and what happened."""
        self.tried += 1
        self.faulty += bool(faults)
        for kind, what in faults:
            column = _KIND_OF.get(kind, kind)
            assert column in COLUMNS, column
            self.counts[column] += 1
            self.faults.append(f"{self.name}: {title}: {column}: {what}")


def table(parts: list[Part]) -> str:
    """Return the campaign as a table in Markdown, and the faults below it."""
    columns = [column for column in COLUMNS if column != "bit-identical" or any(part.counts[column] for part in parts)]
    rows = [["part", "tried", "survived", *columns], ["---"] + ["---:"] * (2 + len(columns))]
    for part in parts:
        counts = [str(part.counts[column]) for column in columns]
        rows.append([part.name, str(part.tried), str(part.tried - part.faulty), *counts])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    faults = [f"- {fault}" for part in parts for fault in part.faults]
    return "\n".join([*lines, *(["", *faults] if faults else [])]) + "\n"
