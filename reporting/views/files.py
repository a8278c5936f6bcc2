"""The files of a report: an HTML page, Markdown with plots, and JSON with all figures.

The page is self-contained, with tables, sentences and plots inline; it follows the reader's dark or light scheme.
"""

from __future__ import annotations

import re
from pathlib import Path

from markupsafe import Markup

from reporting.plots.comparison import plots
from reporting.plots.style import Plot
from reporting.views import report, tables
from reporting.views.headline import conclusion
from reporting.views.report import ComparisonReport
from runner.common.files import write_output
from runner.common.pages import markdown_text, page_template
from runner.terminal.progress import track

PNG_GROUPS = 4  # groups with PNG plots for Markdown: drawing those of many groups would take longer than all the rest
DRAWN_GROUPS = 8  # groups with plots in the page
UNDRAWN = f"Plots are drawn of the first {DRAWN_GROUPS} groups; compare fewer runs to see those of this one."
LONGEST_NAME = 80  # characters of a file name made from the names on the command line


def write(comparison: ComparisonReport, folder: Path) -> list[Path]:
    """Write index.html, report.md, report.json and PNG plots over older ones; return their paths, the page first."""
    folder.mkdir(parents=True, exist_ok=True)
    first = comparison.groups[:DRAWN_GROUPS]
    groups = track(first, "drawing plots", len(first))
    drawn = [plots(group, place < PNG_GROUPS) for place, group in enumerate(groups)]
    drawn += [[] for _ in comparison.groups[DRAWN_GROUPS:]]
    images: list[Path] = []
    shown: list[list[str]] = []  # the lines of Markdown that show the plots of each group
    for place, (group, own) in enumerate(zip(comparison.groups, drawn, strict=True)):
        elsewhere = f"Its plots: [index.html](index.html#{_anchor(place)})" if own and place >= PNG_GROUPS else ""
        shown.append([line for line in (elsewhere, _undrawn(place)) if line])
        for plot in own:
            if plot.png:
                path = folder / f"{place + 1}-{slug(group.title)}-{plot.name}.png"
                path.write_bytes(plot.png)
                images.append(path)
                shown[-1].append(f"![{markdown_text(plot.caption)}]({path.name})")
    texts = {
        "index.html": _page(comparison, drawn),
        "report.md": report.to_markdown(comparison, shown),
        "report.json": report.to_json(comparison),
    }
    for name, text in texts.items():
        write_output(folder / name, text)
    return [folder / name for name in texts] + images


def slug(text: str) -> str:
    """Return `text` as a file name: letters, digits, dots, dashes and underscores; never `..`."""
    return re.sub(r"[^\w.-]+|\.{2,}", "-", text, flags=re.ASCII).strip("-.")[:LONGEST_NAME]


def _page(comparison: ComparisonReport, drawn: list[list[Plot]]) -> str:
    """Return the report as HTML, with the plots `drawn` of each group. All names are escaped."""
    sections = [
        {
            "id": _anchor(place),
            "heading": tables.heading(group),
            "conclusion": conclusion(group, comparison.confidence),
            "tables": tables.tables(group, comparison.confidence),
            "sentences": group.sentences,
            "notes": tables.notes(group),
            "caveats": group.caveats,
            "undrawn": _undrawn(place),
            "plots": [{"name": plot.name, "caption": plot.caption, "svg": _svg(plot)} for plot in own],
        }
        for place, (group, own) in enumerate(zip(comparison.groups, drawn, strict=True))
    ]
    return page_template("reporting", "report.html").render(
        title=report.title(comparison),
        report=comparison,
        overviews=report.first_tables(comparison),
        sections=sections,
        warnings=report.warnings(comparison),
        left_out=report.last_lines(comparison),
    )


def tables_html(comparison: ComparisonReport) -> str:
    """Return conclusions and tables as HTML for a notebook, without plots and styles. All names are escaped."""
    sections = [
        {
            "heading": tables.heading(group),
            "conclusion": conclusion(group, comparison.confidence),
            "tables": tables.tables(group, comparison.confidence),
            "caveats": group.caveats,
        }
        for group in comparison.groups
    ]
    page = page_template("reporting", "cells.html")
    return page.render(sections=sections, left_out=report.last_lines(comparison))


def _undrawn(place: int) -> str:
    return UNDRAWN if place >= DRAWN_GROUPS else ""


def _anchor(place: int) -> str:
    return f"group-{place + 1}"


def _svg(plot: Plot) -> Markup:
    """Return the SVG with its caption as label for screen readers. Matplotlib has escaped all names in it."""
    return Markup('<svg role="img" aria-label="{}"').format(plot.caption) + Markup(plot.svg.removeprefix("<svg"))
