"""What came of the gallery, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from runner.audit.gallery.cases import Catch, run_gallery


def console() -> list[Catch]:
    """Audit all bugs and print, for each, where and as what it was found."""
    catches = run_gallery()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("bug", "caught", "at", "as", "named", "mended twin"):
        table.add_column(column)
    for one in catches:
        module, kind = one.found or ("-", "-")
        marks = ("yes" if one.found else "NO", module, kind, "yes" if one.named else "NO")
        table.add_row(one.bug.name, *marks, "passes" if one.twin_passed else "FAILS")
    Console(width=1000, highlight=False).print(table)
    named = sum(one.named for one in catches)
    caught = sum(one.found is not None for one in catches)
    passing = sum(one.twin_passed for one in catches)
    print(f"{caught} of {len(catches)} caught, {named} named rightly; {passing} mended twins pass")
    return catches


def as_dicts(catches: Sequence[Catch]) -> list[dict[str, Any]]:
    """Plain values, as `--json` writes them."""
    return [
        {
            "bug": one.bug.name,
            "caught": one.found is not None,
            "module": one.found[0] if one.found else None,
            "kind": one.found[1] if one.found else None,
            "expected": [one.bug.module, one.bug.kind],
            "named": one.named,
            "twin_passes": one.twin_passed,
        }
        for one in catches
    ]
