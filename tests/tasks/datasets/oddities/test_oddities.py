"""What every reader makes of odd files stays as table.md says it."""

from pathlib import Path

from tests.tasks.datasets.oddities.odd_files import HEAD, rows

TABLE = Path(__file__).with_name("table.md")


def test_the_table_is_true():
    """After a change: python -m tests.tasks.datasets.oddities.odd_files > tests/tasks/datasets/oddities/table.md"""
    assert [*HEAD, *rows()] == TABLE.read_text(encoding="utf-8").splitlines()
