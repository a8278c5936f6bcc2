"""Memory that is freed stays with the process, where its allocator can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

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
