"""A report on the console and as one self-contained page."""

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
from runner.audit.search_space import Audited

WIDEST = 1000  # columns; a table takes what it needs
SHADES = 10  # of the heat map, one a power of ten beyond what rounding allows
MARKS: dict[State, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "fail": ("FAIL", "bold red"),
    "not run": ("not run", "yellow"),
    "none": ("-", "dim"),
}


def console(report: Report) -> None:
    """The verdicts as a table, then each fault."""
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


def combination(audited: Audited) -> list[str]:
    """One of a whole space of configs, in a line, and its faults."""
    report = audited.report
    if report is None:
        return [f"-     {audited.choice}: {audited.unfit}"]
    named = ", ".join(one for one in report.subjects() if one not in report.controls)
    mark = "ok  " if audited.passed else "FAIL"
    lines = [f"{mark}  {audited.choice}: {named} ({report.facts['seconds']:.1f} s)"]
    if audited.is_control:
        return [f"{lines[0]}; a control: it must {'and does ' if audited.passed else ''}fail"]
    lines += [f"      {fault.lines[0]}" for fault in faults(report.failures())]
    return lines + [f"      {line}" for line in _not_run(report)]


def closing(report: Report) -> list[str]:
    """What the verdicts come to, in a sentence or two."""
    lines = []
    for control in report.controls:
        failed = [one.check for one in report.failures(controls=True) if one.subject == control]
        lines.append(
            f"Control: {control} ignores the mask and fails {_count(len(set(failed)))}, so this audit can fail."
            if failed
            else f"Control: {control} ignores the mask, and yet nothing differs: this model never reads padding."
        )
    reasons: dict[str, list[str]] = {}
    for name, reason in report.facts.get("left out", {}).items():
        reasons.setdefault(reason.partition("; got")[0], []).append(name)
    lines += [f"Left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    lines += _not_run(report)
    subjects = [one for one in report.subjects() if one not in report.controls]
    seconds = f" ({report.facts['seconds']:.0f} s)" if "seconds" in report.facts else ""
    if report.passed:
        besides = f", {_count(len(report.not_run))} not run here" if report.not_run else ""
        lines.append(f"Batch-invariant under {', '.join(subjects)}{besides}{seconds}.")
    elif not report.failures():
        lines.append(f"Undecided: no check was made{seconds}.")
    else:
        guilty = list(dict.fromkeys(one.subject for one in report.failures()))
        lines.append(f"NOT batch-invariant: {', '.join(guilty)}{seconds}.")
    return lines


def _not_run(report: Report) -> list[str]:
    """Return a line for each reason why this machine could not make a check, with the checks and strategies."""
    groups: dict[str, list[Verdict]] = {}
    for one in report.not_run:
        groups.setdefault(one.reason, []).append(one)
    return [
        f"{_count(len(group))} {reason} ({_named(one.check for one in group)}; {_named(one.subject for one in group)}; "
        f"{' and '.join(dict.fromkeys(one.mode for one in group))} mode)"
        for reason, group in groups.items()
    ]


def _named(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _count(checks: int) -> str:
    return "1 check" if checks == 1 else f"{checks} checks"


def page(report: Report) -> str:
    """The report as HTML: nothing is fetched, all names are escaped."""
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
            (check, CHECKS[check], [_cell(report, one, check) for one in report.subjects()])
            for check in report.checks()
        ],
        faults=[one.lines for one in faults(report.failures(controls=True))],
        closing=closing(report),
        facts={name: _fact(value) for name, value in report.facts.items() if name != "left out"},
        heats=sorted((_heat(report, one) for one in report.heats if one.modules), key=lambda one: not one["differs"]),
        shades=list(range(SHADES + 1)),
    )


def _mark(report: Report, subject: str, check: str) -> Text:
    verdicts = report.of(subject, check)
    state = state_of(verdicts)
    text, style = MARKS[state]
    modes = [one.mode for one in verdicts if state in ("fail", "not run") and state_of([one]) == state]
    return Text(f"{text} ({modes[0]})" if len(modes) == 1 < len(verdicts) else text, style)


def _cell(report: Report, subject: str, check: str) -> dict[str, str]:
    verdicts = report.of(subject, check)
    state = state_of(verdicts).replace(" ", "-")
    share = max((one.worst for one in verdicts), default=0.0)
    told = (
        next((one.reason for one in verdicts if one.reason), "")
        or f"largest difference: {share:.2g} of what rounding allows"
    )
    return {"state": state, "text": _mark(report, subject, check).plain, "told": told}


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _heat(report: Report, heat: Heat) -> dict[str, Any]:
    """Rows of cells with a shade 0 (within rounding) to `SHADES`; and what that check found."""
    width = max(len(heat.tokens), 1)
    rows = []
    for name, shares in zip(heat.modules, heat.shares, strict=True):
        spread = shares if len(shares) == width else [max(shares, default=0.0)] * width
        rows.append((name, [(_shade(share), _told(share)) for share in spread]))
    differs = any(share > 1.0 for shares in heat.shares for share in shares)
    found = [one.finding for one in report.of(heat.subject, heat.check) if one.mode == heat.mode and one.finding]
    told = f"where it differs: {found[0].kind} at {found[0].module}" if found else "where it differs"
    return {
        "heat": heat,
        "rows": rows,
        "tokens": heat.tokens or ["(no token)"],
        "differs": differs,
        "told": told if differs else "no difference",
    }


def _shade(share: float) -> int:
    if share <= 1.0:
        return 0
    return SHADES if math.isinf(share) else min(SHADES, 1 + int(math.log10(share)))


def _told(share: float) -> str:
    return "beyond all bounds" if math.isinf(share) else f"{share:.2g} of what rounding allows"
