"""The files of a report: one page, Markdown with its plots, and all figures."""

from __future__ import annotations

import re
from pathlib import Path

from reporting.plots.comparison import plots
from reporting.plots.style import Plot
from reporting.views import html, report
from reporting.views.report import Report

PNG_GROUPS = 4  # whose plots Markdown shows too: pictures of many groups would take longer than all the rest
LONGEST_NAME = 80  # characters of a file name that is made from what was asked for


def write(made: Report, out: Path) -> list[Path]:
    """index.html, report.md, report.json and PNG plots into `out`, in place of an older report's; the page first."""
    out.mkdir(parents=True, exist_ok=True)
    drawn = [plots(group, at < PNG_GROUPS) for at, group in enumerate(made.groups)]
    images = [_write_images(out, at, made.groups[at].title, each) for at, each in enumerate(drawn)]
    lines = [[line for line, _ in each] + _elsewhere(at, drawn[at]) for at, each in enumerate(images)]
    texts = {
        "index.html": html.page(made, drawn),
        "report.md": report.to_markdown(made, lines),
        "report.json": report.to_json(made),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts] + [path for each in images for _, path in each]


def slug(text: str) -> str:
    """`text` as a file name: letters, digits, dots, dashes and underscores; never `..`."""
    return re.sub(r"[^\w.-]+|\.{2,}", "-", text, flags=re.ASCII).strip("-.")[:LONGEST_NAME]


def _write_images(out: Path, at: int, title: str, drawn: list[Plot]) -> list[tuple[str, Path]]:
    """Writes a group's plots, those that have a picture; returns the Markdown that shows them, and the files."""
    written = []
    for plot in drawn:
        if plot.png:
            path = out / f"{at + 1}-{slug(title)}-{plot.name}.png"
            path.write_bytes(plot.png)
            written.append((f"![{plot.caption}]({path.name})", path))
    return written


def _elsewhere(at: int, drawn: list[Plot]) -> list[str]:
    """Where the plots are of which there are no pictures."""
    return [f"Its plots: [index.html](index.html#{html.anchor(at)})"] if drawn and at >= PNG_GROUPS else []
