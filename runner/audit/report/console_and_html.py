"""An audit's report on the console and as one self-contained HTML page."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.audit.checks.variations import CHECKS
from runner.audit.checks.verdict import Heat, Report, State, Verdict, faults, state_of
from runner.audit.search_space import CombinationResult

WIDEST = 1000  # console width in columns; a table takes what it needs
SHADES = 10  # shades of the heat map, one for each power of ten beyond rounding
MARKS: dict[State, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "fail": ("FAIL", "bold red"),
    "not run": ("not run", "yellow"),
    "none": ("-", "dim"),
}


def console(report: Report) -> None:
    """Print the verdicts as a table, then each fault and the conclusion."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    out = Console(width=WIDEST, markup=False, highlight=False, emoji=False)
    out.print(Text(report.title, style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("check")
    for subject in report.subjects():
        table.add_column(subject)
    table.add_column("varied", style="dim")
    for check in report.checks():
        table.add_row(check, *[_mark(report, subject, check) for subject in report.subjects()], CHECKS[check])
    out.print(table)
    for fault in faults(report.failures(controls=True)):
        only_control = all(subject in report.controls for subject in fault.subjects)
        first, *more = fault.lines
        out.print(Text(first, style="yellow" if only_control else "red"), soft_wrap=True)
        for line in more:
            out.print(f"  {line}", soft_wrap=True)
    for line in closing(report):
        out.print(line, soft_wrap=True)


def combination(audited: CombinationResult) -> list[str]:
    """Return the lines on one combination of a search space: its result, its faults, and checks that were not run."""
    report = audited.report
    if report is None:
        return [f"-     {audited.choice}: {audited.unfit}"]
    named = ", ".join(subject for subject in report.subjects() if subject not in report.controls)
    mark = "ok  " if audited.passed else "FAIL"
    lines = [f"{mark}  {audited.choice}: {named} ({report.facts['seconds']:.1f} s)"]
    if audited.is_control:
        return [f"{lines[0]}; a control, which must {'and does ' if audited.passed else ''}fail"]
    lines += [f"      {fault.lines[0]}" for fault in faults(report.failures())]
    return lines + [f"      {line}" for line in _not_run(report)]


def closing(report: Report) -> list[str]:
    """Return the conclusion in a few lines: controls, strategies left out, checks not run, and the overall result."""
    lines = []
    for control in report.controls:
        failed = {verdict.check for verdict in report.failures(controls=True) if verdict.subject == control}
        lines.append(
            f"Control: {control} ignores the mask and fails {_count(len(failed))}, so this audit can fail."
            if failed
            else f"Control: {control} ignores the mask, yet nothing differs: this model never reads padding."
        )
    reasons: dict[str, list[str]] = {}
    for name, reason in report.facts.get("left out", {}).items():
        reasons.setdefault(reason.partition("; got")[0], []).append(name)
    lines += [f"Left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    lines += _not_run(report)
    if computed := report.facts.get("computed otherwise"):
        lines.append(computed)
    subjects = [subject for subject in report.subjects() if subject not in report.controls]
    seconds = f" ({report.facts['seconds']:.0f} s)" if "seconds" in report.facts else ""
    if report.passed:
        not_run = f", {_count(len(report.not_run))} not run here" if report.not_run else ""
        lines.append(f"Batch-invariant under {', '.join(subjects)}{not_run}{seconds}.")
    elif not report.failures():
        lines.append(f"Undecided: checks were not run{seconds}.")
    else:
        lines.append(f"NOT batch-invariant: {_unique(verdict.subject for verdict in report.failures())}{seconds}.")
    return lines


def _not_run(report: Report) -> list[str]:
    """Return a line for each reason why this machine could not run a check, with the checks and strategies."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in report.not_run:
        groups.setdefault(verdict.reason, []).append(verdict)
    lines = []
    for reason, group in groups.items():
        checks, subjects = _unique(verdict.check for verdict in group), _unique(verdict.subject for verdict in group)
        modes = " and ".join(dict.fromkeys(verdict.mode for verdict in group))
        lines.append(f"{_count(len(group))} {reason} ({checks}; {subjects}; {modes} mode)")
    return lines


def _unique(names: Iterable[str]) -> str:
    """Return the distinct names in order, with commas."""
    return ", ".join(dict.fromkeys(names))


def _count(checks: int) -> str:
    return "1 check" if checks == 1 else f"{checks} checks"


def page(report: Report) -> str:
    """Return the report as an HTML page that loads nothing and escapes all names."""
    environment = Environment(
        loader=PackageLoader("runner.audit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("audit.html").render(
        report=report,
        rows=[
            (check, CHECKS[check], [_cell(report, subject, check) for subject in report.subjects()])
            for check in report.checks()
        ],
        faults=[fault.lines for fault in faults(report.failures(controls=True))],
        closing=closing(report),
        facts={name: _fact(value) for name, value in report.facts.items() if name != "left out"},
        heats=sorted(
            (_heat(report, heat) for heat in report.heats if heat.modules), key=lambda shown: not shown["differs"]
        ),
        shades=list(range(SHADES + 1)),
    )


def _mark(report: Report, subject: str, check: str) -> Text:
    """Return the state of a check, with the mode where it holds in one of several modes only."""
    verdicts = report.of(subject, check)
    state = state_of(verdicts)
    text, style = MARKS[state]
    modes = [verdict.mode for verdict in verdicts if state in ("fail", "not run") and state_of([verdict]) == state]
    return Text(f"{text} ({modes[0]})" if len(modes) == 1 < len(verdicts) else text, style)


def _cell(report: Report, subject: str, check: str) -> dict[str, str]:
    """Return the table cell of a check: its CSS class, text and tooltip."""
    verdicts = report.of(subject, check)
    state = state_of(verdicts).replace(" ", "-")
    share = max((verdict.worst for verdict in verdicts), default=0.0)
    reason = next((verdict.reason for verdict in verdicts if verdict.reason), "")
    tooltip = reason or f"largest difference: {share:.2g} of the allowed rounding"
    return {"state": state, "text": _mark(report, subject, check).plain, "tooltip": tooltip}


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _heat(report: Report, heat: Heat) -> dict[str, Any]:
    """Return a heat map: rows of cells of shade 0 (within rounding) to `SHADES`, and the finding of its check."""
    width = max(len(heat.tokens), 1)
    rows = []
    for name, shares in zip(heat.modules, heat.shares, strict=True):
        spread = shares if len(shares) == width else [max(shares, default=0.0)] * width
        rows.append((name, [(_shade(share), _tooltip(share)) for share in spread]))
    differs = any(share > 1.0 for shares in heat.shares for share in shares)
    verdicts = [verdict for verdict in report.of(heat.subject, heat.check) if verdict.mode == heat.mode]
    finding = next((verdict.finding for verdict in verdicts if verdict.finding), None)
    summary = f"where it differs: {finding.kind} at {finding.module}" if finding else "where it differs"
    return {
        "heat": heat,
        "rows": rows,
        "tokens": heat.tokens or ["(no token)"],
        "differs": differs,
        "summary": summary if differs else "no difference",
    }


def _shade(share: float) -> int:
    if share <= 1.0:
        return 0
    return SHADES if math.isinf(share) else min(SHADES, 1 + int(math.log10(share)))


def _tooltip(share: float) -> str:
    return "infinite difference" if math.isinf(share) else f"{share:.2g} of the allowed rounding"
