"""One self-contained page: tables, sentences and plots inline, nothing fetched, dark or light as the reader has it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reporting import report as reports
from reporting import tables
from reporting.drawing import Plot
from reporting.report import Report
from reporting.summary import Group


def page(report: Report, drawn: list[list[Plot]]) -> str:
    """The report as HTML. `drawn`: the plots of each group. All names are escaped."""
    environment = Environment(
        loader=PackageLoader("reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [_section(group, report.confidence, plots) for group, plots in zip(report.groups, drawn, strict=True)]
    return environment.get_template("report.html").render(
        title=reports.title(report),
        report=report,
        overviews=reports.first_tables(report),
        sections=sections,
        left_out=reports.last_lines(report),
    )


def _section(group: Group, confidence: float, drawn: list[Plot]) -> dict[str, object]:
    return {
        "heading": tables.heading(group),
        "tables": tables.tables(group, confidence),
        "sentences": group.sentences,
        "notes": tables.notes(group),
        "caveats": group.caveats,
        # matplotlib escapes the names in its SVG, so it is markup; everything else is text
        "plots": [{"name": plot.name, "caption": plot.caption, "svg": Markup(plot.svg)} for plot in drawn],
    }
