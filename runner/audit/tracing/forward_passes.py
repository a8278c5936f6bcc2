"""The forward passes of a run: a strategy may cut an update into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import Record, Setting, Side, Subject, trace

Key = tuple[str, int, int]  # module, its call within the pass, part of what it returned or was given


@dataclass(frozen=True)
class Pass:
    """What modules returned, or were given, in one forward pass.

    Attributes:
        rows: the examples in it.
        records: in the order in which they were made.
    """

    rows: tuple[int, ...]
    geometry: Geometry
    records: dict[Key, Record]


def passes(
    subject: Subject, rows: Sequence[int], setting: Setting, only: str | None = None, of: Side = "outputs"
) -> list[Pass]:
    """The passes of one run, of all modules or `only` one; a module called unevenly often is left out."""
    cut = subject.cut(rows)
    records = trace(subject, rows, setting, only, of)
    calls = {record.module: record.call + 1 for record in records}
    found: list[dict[Key, Record]] = [{} for _ in cut]
    for record in records:
        each, rest = divmod(calls[record.module], len(cut))
        if rest == 0:
            number, call = divmod(record.call, each)
            found[number][record.module, call, record.part] = record
    return [Pass(tuple(some), subject.geometry(some, setting), one) for some, one in zip(cut, found, strict=True)]
