"""One self-contained page: tables, sentences and plots inline, nothing fetched, dark or light as the reader has it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reporting.comparison.summary import Group
from reporting.plots.style import Plot
from reporting.views import report as reports
from reporting.views import tables
from reporting.views.headline import answer
from reporting.views.report import Report


def page(report: Report, drawn: list[list[Plot]]) -> str:
    """The report as HTML. `drawn`: the plots of each group. All names are escaped."""
    environment = Environment(
        loader=PackageLoader("reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        _section(at, group, report.confidence, plots)
        for at, (group, plots) in enumerate(zip(report.groups, drawn, strict=True))
    ]
    return environment.get_template("report.html").render(
        title=reports.title(report),
        report=report,
        overviews=reports.first_tables(report),
        sections=sections,
        left_out=reports.last_lines(report),
    )


def anchor(at: int) -> str:
    """Of a group, by its place, in the page's address."""
    return f"group-{at + 1}"


def _section(at: int, group: Group, confidence: float, drawn: list[Plot]) -> dict[str, object]:
    return {
        "id": anchor(at),
        "heading": tables.heading(group),
        "answer": answer(group),
        "tables": tables.tables(group, confidence),
        "sentences": group.sentences,
        "notes": tables.notes(group),
        "caveats": group.caveats,
        "plots": [{"name": plot.name, "caption": plot.caption, "svg": _svg(plot)} for plot in drawn],
    }


def _svg(plot: Plot) -> Markup:
    """The drawing, with a name for those who hear the page; matplotlib escapes the names in its SVG: it is markup."""
    return Markup('<svg role="img" aria-label="{}"').format(plot.caption) + Markup(plot.svg.removeprefix("<svg"))
