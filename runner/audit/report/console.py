"""An audit's report on the console."""

from __future__ import annotations

from rich.text import Text

from runner.audit.checks.variations import CHECKS
from runner.audit.checks.verdict import AuditReport, State, faults
from runner.audit.report.text import check_result, conclusion, notes
from runner.common.rich_tables import plain_table, wide_console

STYLES: dict[State, str] = {"ok": "green", "fail": "bold red", "not run": "yellow", "none": "dim"}


def print_report(report: AuditReport) -> None:
    """Print the verdicts as a table, then each fault, the notes and the conclusion."""
    console = wide_console()
    console.print(Text(report.title, style="bold"))
    table = plain_table("check", *report.subjects(), "what is varied")
    for check in report.checks():
        results = [check_result(report, subject, check) for subject in report.subjects()]
        cells = [Text(result.text, STYLES[result.state]) for result in results]
        table.add_row(check, *cells, Text(CHECKS[check], "dim"))
    console.print(table)
    for fault in faults(report.failures(controls=True)):
        is_expected = all(subject in report.controls for subject in fault.subjects)
        console.print(Text(fault.headline, style="yellow" if is_expected else "red"), soft_wrap=True)
        for line in fault.details:
            console.print(f"  {line}", soft_wrap=True)
    for line in (*notes(report), conclusion(report)):
        console.print(line, soft_wrap=True)
