"""The results of the gallery, as a table and as plain values."""

from __future__ import annotations

from collections.abc import Sequence

from runner.audit.gallery.cases import GalleryResult
from runner.common.rich_tables import plain_table, wide_console


def print_results(results: Sequence[GalleryResult]) -> None:
    """Print the module and kind that the audit named for each bug, and the totals."""
    table = plain_table("bug", "caught", "named module", "named kind", "as expected", "fixed version")
    for result in results:
        module, kind = result.named or ("-", "-")
        marks = ("yes" if result.named else "NO", module, kind, "yes" if result.is_correct else "NO")
        table.add_row(result.bug.name, *marks, "passes" if result.twin_passed else "FAILS")
    wide_console().print(table)
    caught = sum(result.named is not None for result in results)
    correct = sum(result.is_correct for result in results)
    passed = sum(result.twin_passed for result in results)
    print(f"{caught} of {len(results)} bugs caught, {correct} named correctly; {passed} fixed versions pass")


def as_dicts(results: Sequence[GalleryResult]) -> list[dict[str, object]]:
    """Return plain values, as `--json` writes them."""
    return [
        {
            "bug": result.bug.name,
            "caught": result.named is not None,
            "module": result.named[0] if result.named else None,
            "kind": result.named[1] if result.named else None,
            "expected": [result.bug.module, result.bug.kind],
            "named": result.is_correct,
            "twin_passes": result.twin_passed,
        }
        for result in results
    ]
