"""The memory that is left: of the machine, and of a container with a limit."""

from pathlib import Path

import pytest

from runner.profiling.host_memory import available_bytes


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, 5_000 * 1024), ("max", 5_000 * 1024), ("3000000", 1_500_000), ("900000", 0)]
)
def test_the_smallest_of_what_is_known(tmp_path: Path, limit: str | None, expected: int) -> None:
    system = tmp_path / "meminfo"
    system.write_text("MemTotal:       9000 kB\nMemFree:  100 kB\nMemAvailable:   5000 kB\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("2000000\n")
        (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert available_bytes(system, tmp_path) == expected


def test_another_system_does_not_say(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "no", tmp_path / "no") is None
