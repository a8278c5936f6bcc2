"""The sentences of an audit's report, shared by the console and the page."""

from __future__ import annotations

from typing import NamedTuple

from runner.audit.checks.verdict import AuditReport, State, Verdict, faults, state_of, unique
from runner.audit.search_space import CombinationResult

MARKS: dict[State, str] = {"ok": "ok", "fail": "FAIL", "not run": "not run", "none": "-"}


class CheckResult(NamedTuple):
    """The result of one check of one subject: its state, and the text of its table cell."""

    state: State
    text: str


def check_result(report: AuditReport, subject: str, check: str) -> CheckResult:
    """Return the combined result of all modes; the text has the mode where only one of several modes has this state."""
    verdicts = report.of(subject, check)
    state = state_of(verdicts)
    modes = [verdict.mode for verdict in verdicts if state in ("fail", "not run") and state_of([verdict]) == state]
    return CheckResult(state, f"{MARKS[state]} ({modes[0]})" if len(modes) == 1 < len(verdicts) else MARKS[state])


def conclusion(report: AuditReport) -> str:
    """Return the overall result in one sentence."""
    seconds = "" if report.facts is None else f" ({report.facts.seconds:.0f} s)"
    if report.passed:
        audited = ", ".join(subject for subject in report.subjects() if subject not in report.controls)
        not_run = f"; {_count(len(report.not_run))} not run here" if report.not_run else ""
        return f"Passed: batch-invariant under {audited}{not_run}{seconds}."
    if not report.failures():
        return f"No result: checks that decide could not be run here{seconds}."
    failed = unique(verdict.subject for verdict in report.failures())
    return f"FAILED: not batch-invariant under {', '.join(failed)}{seconds}."


def notes(report: AuditReport) -> list[str]:
    """Return a line on each control, each group of strategies that were left out, and each group of checks not run."""
    lines = []
    for control in report.controls:
        failed = {verdict.check for verdict in report.failures(controls=True) if verdict.subject == control}
        lines.append(
            f"Control: {control} ignores the mask and fails {_count(len(failed))}, so the audit can find such a fault."
            if failed
            else f"Control: {control} ignores the mask but fails no check: this model never reads padding."
        )
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
    audited = ", ".join(subject for subject in report.subjects() if subject not in report.controls)
    seconds = "" if report.facts is None else f" ({report.facts.seconds:.1f} s)"
    first = f"{'ok  ' if result.passed else 'FAIL'}  {result.choice}: {audited}{seconds}"
    if result.is_control:
        return [f"{first}; a control, which must {'and does ' if result.passed else ''}fail"]
    return [
        first,
        *(f"      {line}" for line in (*(fault.headline for fault in faults(report.failures())), *_not_run(report))),
    ]


def _not_run(report: AuditReport) -> list[str]:
    """Return a line for each reason why this machine could not run a check, with the checks and strategies."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in report.not_run:
        groups.setdefault(verdict.reason, []).append(verdict)
    lines = []
    for reason, group in groups.items():
        checks = ", ".join(unique(verdict.check for verdict in group))
        subjects = ", ".join(unique(verdict.subject for verdict in group))
        modes = " and ".join(unique(verdict.mode for verdict in group))
        lines.append(f"{_count(len(group))} {reason} ({checks}; {subjects}; {modes} mode)")
    return lines


def _count(checks: int) -> str:
    return "1 check" if checks == 1 else f"{checks} checks"
