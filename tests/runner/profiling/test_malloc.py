"""Memory that is freed stays with the process, where its allocator can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from runner.profiling.malloc import growth

CODE = """
import resource, sys, torch
from runner.profiling.malloc import choose_malloc
print(choose_malloc(sys.argv[1]))

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.empty(20_000_000).fill_(1.0)  # 80 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(20)  # free blocks grow together until they fit
print(faults(10))
"""


def held_and_faults(which: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", CODE, which], capture_output=True, text=True, check=True)
    held, faults = done.stdout.split()
    return held, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an allocator that cannot be told")
def test_blocks_that_are_kept_are_not_cleared_anew() -> None:
    held, kept = held_and_faults("keep")
    assert held == "keep"
    held, returned = held_and_faults("return")
    assert held == "return"
    assert kept < returned / 5


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an allocator that cannot be told")
def test_scores_of_very_many_targets_are_told() -> None:
    line = (
        "malloc=keep: 100,000 targets make blocks of 48 MiB, which may take several times the memory of malloc=return"
    )
    assert growth("keep", 100_000, 128) == line
    assert growth("return", 100_000, 128) is None
    assert growth("keep", 20_000, 128) is None
