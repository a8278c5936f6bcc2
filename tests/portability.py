"""Run the whole suite as on other machines: `make portability` prints a row for each setting.

An x86 processor can be told to hide its wider instructions, so that ATen, oneDNN, MKL and OpenBLAS choose the kernels
of an older one. On another architecture those variables change nothing, and the rows differ in threads and load alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
COUNT = re.compile(r"(\d+) (passed|failed|skipped|error)")


@dataclass(frozen=True)
class Setting:
    """A machine to run the suite as.

    Attributes:
        name: what the table calls it.
        threads: of each test process.
        variables: of the environment.
        busy: other processes that keep a core busy meanwhile.
    """

    name: str
    threads: int
    variables: dict[str, str] = field(default_factory=dict)
    busy: int = 0


def instructions(aten: str, onednn: str, mkl: str, openblas: str) -> dict[str, str]:
    return {
        "ATEN_CPU_CAPABILITY": aten,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "OPENBLAS_CORETYPE": openblas,
    }


SETTINGS = (
    Setting("AVX2, one thread", 1, instructions("avx2", "AVX2", "AVX2", "Haswell")),
    Setting("SSE4.1, two threads", 2, instructions("default", "SSE41", "SSE4_2", "Nehalem")),
    Setting("as it is, two threads, beside two busy processes", 2, busy=2),
)


def run(setting: Setting, arguments: list[str]) -> tuple[str, bool]:
    """Run the suite, show its output, and return a row of the table and whether all tests passed."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(setting.busy)]
    environment = os.environ | setting.variables | {"OMP_NUM_THREADS": str(setting.threads)}
    start = time.monotonic()
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *arguments]
        tests = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert tests.stdout is not None
        lines = []
        for line in tests.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        code = tests.wait()
    finally:
        for item in busy:
            item.kill()
    counts = {name: number for number, name in COUNT.findall(lines[-1] if lines else "")}
    shown = " | ".join(counts.get(name, "0") for name in ("passed", "failed", "skipped"))
    return f"| {setting.name} | {shown} | {(time.monotonic() - start) / 60:.1f} |", code == 0


def main(arguments: list[str]) -> int:
    rows, passed = [], True
    for setting in SETTINGS:
        print(f"== {setting.name}", flush=True)
        row, here = run(setting, arguments)
        rows.append(row)
        passed = passed and here
    print("\n".join(["| setting | passed | failed | skipped | minutes |", "|---|---|---|---|---|", *rows]))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
