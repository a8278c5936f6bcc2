"""The results of the gallery, as a table and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from runner.audit.gallery.cases import Catch, run_gallery


def console() -> list[Catch]:
    """Audit all bugs, and print the module and kind that the audit named for each."""
    catches = run_gallery()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("bug", "caught", "at", "as", "named", "fixed twin"):
        table.add_column(column)
    for catch in catches:
        module, kind = catch.found or ("-", "-")
        marks = ("yes" if catch.found else "NO", module, kind, "yes" if catch.named else "NO")
        table.add_row(catch.bug.name, *marks, "passes" if catch.twin_passed else "FAILS")
    Console(width=1000, highlight=False).print(table)
    named = sum(catch.named for catch in catches)
    caught = sum(catch.found is not None for catch in catches)
    passing = sum(catch.twin_passed for catch in catches)
    print(f"{caught} of {len(catches)} caught, {named} named correctly; {passing} fixed twins pass")
    return catches


def as_dicts(catches: Sequence[Catch]) -> list[dict[str, Any]]:
    """Return plain values, as `--json` writes them."""
    return [
        {
            "bug": catch.bug.name,
            "caught": catch.found is not None,
            "module": catch.found[0] if catch.found else None,
            "kind": catch.found[1] if catch.found else None,
            "expected": [catch.bug.module, catch.bug.kind],
            "named": catch.named,
            "twin_passes": catch.twin_passed,
        }
        for catch in catches
    ]
