"""A self-contained HTML page with tables, sentences and plots inline; it follows the reader's dark or light scheme."""

from __future__ import annotations

from markupsafe import Markup

from reporting.comparison.summary import RunGroup
from reporting.plots.style import Plot
from reporting.views import report as reports
from reporting.views import tables
from reporting.views.headline import conclusion
from reporting.views.report import ComparisonReport
from runner.common.pages import page_template


def page(report: ComparisonReport, drawn: list[list[Plot]]) -> str:
    """Return the report as HTML, with the plots `drawn` of each group. All names are escaped."""
    sections = [
        _section(place, group, report.confidence, plots)
        for place, (group, plots) in enumerate(zip(report.groups, drawn, strict=True))
    ]
    return page_template("reporting", "report.html").render(
        title=reports.title(report),
        report=report,
        overviews=reports.first_tables(report),
        sections=sections,
        left_out=reports.last_lines(report),
    )


def anchor(place: int) -> str:
    """Return the anchor of the group at this place in the page."""
    return f"group-{place + 1}"


def _section(place: int, group: RunGroup, confidence: float, drawn: list[Plot]) -> dict[str, object]:
    return {
        "id": anchor(place),
        "heading": tables.heading(group),
        "conclusion": conclusion(group, confidence),
        "tables": tables.tables(group, confidence),
        "sentences": group.sentences,
        "notes": tables.notes(group),
        "caveats": group.caveats,
        "plots": [{"name": plot.name, "caption": plot.caption, "svg": _svg(plot)} for plot in drawn],
    }


def _svg(plot: Plot) -> Markup:
    """Return the SVG with its caption as label for screen readers. Matplotlib has escaped all names in it."""
    return Markup('<svg role="img" aria-label="{}"').format(plot.caption) + Markup(plot.svg.removeprefix("<svg"))
