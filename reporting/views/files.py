"""The files of a report: an HTML page, Markdown with plots, and JSON with all figures."""

from __future__ import annotations

import re
from pathlib import Path

from reporting.plots.comparison import plots
from reporting.plots.style import Plot
from reporting.views import html, report
from reporting.views.report import ComparisonReport

PNG_GROUPS = 4  # groups with PNG plots for Markdown: drawing those of many groups would take longer than all the rest
LONGEST_NAME = 80  # characters of a file name made from the names on the command line


def write(comparison: ComparisonReport, folder: Path) -> list[Path]:
    """Write index.html, report.md, report.json and PNG plots over older ones; return their paths, the page first."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [plots(group, place < PNG_GROUPS) for place, group in enumerate(comparison.groups)]
    images = [_write_images(folder, place, comparison.groups[place].title, own) for place, own in enumerate(drawn)]
    lines = [[line for line, _ in own] + _link(place, drawn[place]) for place, own in enumerate(images)]
    texts = {
        "index.html": html.page(comparison, drawn),
        "report.md": report.to_markdown(comparison, lines),
        "report.json": report.to_json(comparison),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts] + [path for own in images for _, path in own]


def slug(text: str) -> str:
    """Return `text` as a file name: letters, digits, dots, dashes and underscores; never `..`."""
    return re.sub(r"[^\w.-]+|\.{2,}", "-", text, flags=re.ASCII).strip("-.")[:LONGEST_NAME]


def _write_images(folder: Path, place: int, title: str, drawn: list[Plot]) -> list[tuple[str, Path]]:
    """Write the PNG plots of a group; return the Markdown that shows each, with its file."""
    written = []
    for plot in drawn:
        if plot.png:
            path = folder / f"{place + 1}-{slug(title)}-{plot.name}.png"
            path.write_bytes(plot.png)
            written.append((f"![{plot.caption}]({path.name})", path))
    return written


def _link(place: int, drawn: list[Plot]) -> list[str]:
    """Return a link to the plots in the page, for a group without PNG plots."""
    return [f"Its plots: [index.html](index.html#{html.anchor(place)})"] if drawn and place >= PNG_GROUPS else []
