"""The forward passes of a run; there are several where a strategy splits an update into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import Record, Setting, Side, Subject, trace

Key = tuple[str, int, int]  # module, its call within the pass, part of its outputs or inputs


@dataclass(frozen=True)
class Pass:
    """The outputs, or inputs, of modules in one forward pass.

    Attributes:
        rows: the examples of the pass.
        geometry: their layout.
        records: records in execution order.
    """

    rows: tuple[int, ...]
    geometry: Geometry
    records: dict[Key, Record]


def passes(
    subject: Subject, rows: Sequence[int], setting: Setting, only: str | None = None, side: Side = "outputs"
) -> list[Pass]:
    """Run some rows and return the records of each forward pass, of all modules or `only` one.

    Passes are distinguished by counting calls, so a module that is not called equally often in each pass is left out.
    """
    groups = subject.split(rows)
    records = trace(subject, rows, setting, only, side)
    calls = {record.module: record.call + 1 for record in records}
    by_pass: list[dict[Key, Record]] = [{} for _ in groups]
    for record in records:
        calls_per_pass, rest = divmod(calls[record.module], len(groups))
        if rest == 0:
            number, call = divmod(record.call, calls_per_pass)
            by_pass[number][record.module, call, record.part] = record
    return [
        Pass(tuple(group), subject.geometry(group, setting), pass_records)
        for group, pass_records in zip(groups, by_pass, strict=True)
    ]
