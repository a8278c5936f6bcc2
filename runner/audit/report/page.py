"""An audit's report as one self-contained HTML page."""

from __future__ import annotations

import math
from typing import NamedTuple

from runner.audit.checks.variations import CHECKS
from runner.audit.checks.verdict import AuditReport, HeatMap, faults
from runner.audit.report.text import check_result, conclusion, notes
from runner.common.pages import page_template

SHADES = 10  # shades of the heat map, one for each power of ten beyond rounding


class TableCell(NamedTuple):
    """The table cell of a check: its CSS class, text and tooltip."""

    state: str
    text: str
    tooltip: str


class HeatTable(NamedTuple):
    """A heat map as a table, with a summary of what the check found."""

    heat: HeatMap
    rows: list[tuple[str, list[tuple[int, str]]]]  # module names and cells: shade, 0 to `SHADES`, and tooltip
    tokens: list[str]  # the titles of the columns
    differs: bool  # some value differs beyond rounding
    summary: str


def page(report: AuditReport) -> str:
    """Return the report as an HTML page that loads nothing and escapes all names."""
    tables = [_heat_table(report, heat) for heat in report.heats if heat.modules]
    facts = {} if report.facts is None else report.facts.by_name()
    return page_template("runner.audit.report", "audit.html").render(
        report=report,
        rows=[
            (check, CHECKS[check], [_cell(report, name, check) for name in report.subjects()])
            for check in report.checks()
        ],
        faults=faults(report.failures(controls=True)),
        notes=notes(report),
        conclusion=conclusion(report),
        facts={name: _fact(value) for name, value in facts.items() if name != "left out"},
        heats=sorted(tables, key=lambda table: not table.differs),
        shades=list(range(SHADES + 1)),
    )


def _cell(report: AuditReport, subject: str, check: str) -> TableCell:
    verdicts, result = report.of(subject, check), check_result(report, subject, check)
    reason = next((verdict.reason for verdict in verdicts if verdict.reason), "")
    share = max((verdict.worst for verdict in verdicts), default=0.0)
    return TableCell(result.state.replace(" ", "-"), result.text, reason or f"largest difference: {_share(share)}")


def _fact(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _heat_table(report: AuditReport, heat: HeatMap) -> HeatTable:
    width = max(len(heat.tokens), 1)
    rows = []
    for name, shares in zip(heat.modules, heat.shares, strict=True):
        spread = shares if len(shares) == width else [max(shares, default=0.0)] * width
        rows.append((name, [(_shade(share), _tooltip(share)) for share in spread]))
    differs = any(share > 1.0 for shares in heat.shares for share in shares)
    verdicts = [verdict for verdict in report.of(heat.subject, heat.check) if verdict.mode == heat.mode]
    finding = next((verdict.finding for verdict in verdicts if verdict.finding), None)
    place = "" if finding is None else f": {finding.kind} at {finding.module}"
    summary = f"where it differs{place}" if differs else "no difference"
    return HeatTable(heat, rows, heat.tokens or ["(no token)"], differs, summary)


def _shade(share: float) -> int:
    if share <= 1.0:
        return 0
    return SHADES if math.isinf(share) else min(SHADES, 1 + int(math.log10(share)))


def _tooltip(share: float) -> str:
    return "infinite difference" if math.isinf(share) else _share(share)


def _share(share: float) -> str:
    return f"{share:.2g} of what rounding explains"
