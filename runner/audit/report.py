"""An audit's report, on the console and as one self-contained HTML page."""

from __future__ import annotations

import math

from rich.text import Text

from runner.audit.checks.variations import CHECKS
from runner.audit.checks.verdict import AuditReport, HeatMap, State, Verdict, faults, state_of, unique
from runner.audit.search_space import CombinationResult
from runner.common.pages import page_template
from runner.terminal.rich_tables import PlainConsole, plain_table

STYLES: dict[State, str] = {"ok": "green", "fail": "bold red", "not run": "yellow", "none": "dim"}
MARKS: dict[State, str] = {"ok": "ok", "fail": "FAIL", "not run": "not run", "none": "-"}
SHADES = 10  # shades of the heat map, one for each power of ten beyond rounding


def check_result(report: AuditReport, subject: str, check: str) -> tuple[State, str]:
    """Return a check's combined result of all modes, and its text: with the mode where just one has this state."""
    verdicts = report.of(subject, check)
    state = state_of(verdicts)
    modes = [verdict.mode for verdict in verdicts if state in ("fail", "not run") and state_of([verdict]) == state]
    return state, f"{MARKS[state]} ({modes[0]})" if len(modes) == 1 < len(verdicts) else MARKS[state]


def print_report(report: AuditReport) -> None:
    """Print the verdicts as a table, then each fault, the notes and the conclusion."""
    console = PlainConsole()
    console.print(Text(report.title, style="bold"))
    table = plain_table("check", *report.subjects(), "what is varied")
    for check in report.checks():
        results = (check_result(report, subject, check) for subject in report.subjects())
        table.add_row(check, *(Text(text, STYLES[state]) for state, text in results), Text(CHECKS[check], "dim"))
    console.print(table)
    for fault in faults(report.failures(controls=True)):
        is_expected = all(subject in report.controls for subject in fault.subjects)
        console.print(Text(fault.headline, style="yellow" if is_expected else "red"), soft_wrap=True)
        for line in fault.details:
            console.print(f"  {line}", soft_wrap=True)
    for line in (*notes(report), conclusion(report)):
        console.print(line, soft_wrap=True)


def conclusion(report: AuditReport) -> str:
    """Return the overall result in one sentence."""
    seconds = "" if report.facts is None else f" ({report.facts.seconds:.0f} s)"
    if report.passed:
        not_run = f"; {_count(len(report.not_run))} not run here" if report.not_run else ""
        return f"Passed: batch-invariant under {', '.join(report.audited())}{not_run}{seconds}."
    if not report.failures():
        return f"No result: checks that decide could not be run here{seconds}."
    failed = unique(verdict.subject for verdict in report.failures())
    return f"FAILED: {report.fault} under {', '.join(failed)}{seconds}."


def notes(report: AuditReport) -> list[str]:
    """Return a line on each control, each group of strategies that were left out, and each group of checks not run."""
    lines = []
    for control in report.controls:
        failed = {verdict.check for verdict in report.failures(controls=True) if verdict.subject == control}
        effect = f"and fails {_count(len(failed))}, so the audit can find such a fault."
        if not failed:
            effect = "but fails no check: this model never reads padding."
        lines.append(f"Control: {control} ignores the mask {effect}")
    if report.facts is not None:
        reasons: dict[str, list[str]] = {}
        for name, reason in report.facts.left_out.items():
            reasons.setdefault(reason.partition("; got")[0], []).append(name)
        lines += [f"Not audited: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    lines += _not_run(report)
    if report.facts is not None and report.facts.precision_note:
        lines.append(report.facts.precision_note)
    return lines


def combination(result: CombinationResult) -> list[str]:
    """Return the lines on one combination of a search space: its result, its faults, and checks that were not run."""
    report = result.report
    if report is None:
        return [f"-     {result.choice}: {result.unfit}"]
    seconds = "" if report.facts is None else f" ({report.facts.seconds:.1f} s)"
    first = f"{'ok  ' if result.passed else 'FAIL'}  {result.choice}: {', '.join(report.audited())}{seconds}"
    if result.is_control:
        return [f"{first}; a control, which must {'and does ' if result.passed else ''}fail"]
    lines = [*(fault.headline for fault in faults(report.failures())), *_not_run(report)]
    return [first, *(f"      {line}" for line in lines)]


def _not_run(report: AuditReport) -> list[str]:
    """Return a line for each reason why this machine could not run a check, with the checks and strategies."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in report.not_run:
        groups.setdefault(verdict.reason, []).append(verdict)
    lines = []
    for reason, group in groups.items():
        triples = zip(*((verdict.check, verdict.subject, verdict.mode) for verdict in group), strict=True)
        checks, subjects, modes = map(unique, triples)
        where = f"{', '.join(checks)}; {', '.join(subjects)}; {' and '.join(modes)} mode"
        lines.append(f"{_count(len(group))} {reason} ({where})")
    return lines


def _count(checks: int) -> str:
    return "1 check" if checks == 1 else f"{checks} checks"


def page(report: AuditReport) -> str:
    """Return the report as an HTML page that loads nothing and escapes all names."""
    tables = [_heat_table(report, heat) for heat in report.heats if heat.modules]
    facts, names = {} if report.facts is None else report.facts.by_name(), report.subjects()
    return page_template("runner.audit", "audit.html").render(
        report=report,
        rows=[(check, CHECKS[check], [_cell(report, name, check) for name in names]) for check in report.checks()],
        faults=faults(report.failures(controls=True)),
        notes=notes(report),
        conclusion=conclusion(report),
        facts={name: _fact(value) for name, value in facts.items() if name != "left out"},
        heats=sorted(tables, key=lambda table: not table["differs"]),
        shades=list(range(SHADES + 1)),
    )


def _cell(report: AuditReport, subject: str, check: str) -> tuple[str, str, str]:
    """Return the CSS class, text and tooltip of the table cell of a check."""
    verdicts, (state, text) = report.of(subject, check), check_result(report, subject, check)
    reason = next((verdict.reason for verdict in verdicts if verdict.reason), "")
    share = max((verdict.worst for verdict in verdicts), default=0.0)
    return state.replace(" ", "-"), text, reason or f"largest difference: {_share(share)}"


def _fact(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _heat_table(report: AuditReport, heat: HeatMap) -> dict[str, object]:
    """Return a heat map as a table of shades and tooltips, with a summary of what the check found."""
    width = max(len(heat.tokens), 1)
    rows = []
    for name, shares in zip(heat.modules, heat.shares, strict=True):
        spread = shares if len(shares) == width else [max(shares, default=0.0)] * width
        tooltips = ("infinite difference" if math.isinf(share) else _share(share) for share in spread)
        rows.append((name, list(zip(map(_shade, spread), tooltips, strict=True))))
    differs = any(share > 1.0 for shares in heat.shares for share in shares)
    verdicts = [verdict for verdict in report.of(heat.subject, heat.check) if verdict.mode == heat.mode]
    finding = next((verdict.finding for verdict in verdicts if verdict.finding), None)
    place = "" if finding is None else f": {finding.kind} at {finding.module}"
    summary = f"where it differs{place}" if differs else "no difference"
    tokens = heat.tokens or ["(no token)"]
    return {"heat": heat, "rows": rows, "tokens": tokens, "differs": differs, "summary": summary}


def _shade(share: float) -> int:
    if share <= 1.0:
        return 0
    return SHADES if math.isinf(share) else min(SHADES, 1 + int(math.log10(share)))


def _share(share: float) -> str:
    return f"{share:.2g} of what rounding explains"
