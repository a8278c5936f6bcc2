"""Every figure of a run under one name, `test/f1` or `speed/real_tokens_per_s`, for CSV files and for baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reporting.runs.run import Run
from runner.common.records import finite

# the prefix of a figure's name, in MLflow and in conditions -> its section of result.json
SECTIONS = {
    "test": "metrics.test",
    "valid": "metrics.valid",
    "speed": "speed",
    "memory": "memory",
    "seconds": "seconds",
    "energy": "energy",
    "arithmetic": "arithmetic",
    "tokens": "tokens",
    "padding": "padding",
    "characters": "characters",
    "updates": "updates",
    "model": "model",
}
MIB = 2**20
MACHINE_SECTIONS = ("speed", "memory", "seconds", "energy", "arithmetic")  # comparable only on one machine


@dataclass(frozen=True)
class RunFigures:
    """The identity of one run, its machine, and its figures by name."""

    run_id: str
    seed: int
    turn: int
    machine: tuple[str, ...]
    figures: dict[str, float]


def run_figures(run: Run) -> RunFigures:
    """Return every figure of a run."""
    figures = dict(_figures(run))
    return RunFigures(run.result["run_id"], run.seed, run.turn, run.machine, figures)


def depends_on_machine(name: str) -> bool:
    """Return True if a figure depends on the machine that the run used."""
    return name.partition("/")[0] in MACHINE_SECTIONS


def amount(value: float, figure: str, sign: str = "") -> str:
    """Return a figure as text: bytes in MiB, others to four digits, or as whole numbers from 1,000 on."""
    if figure.endswith("_bytes"):
        return f"{value / MIB:{sign},.1f} MiB"
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4g}"


def _figures(run: Run) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of all sections; nested tables (by type, by length) are left out."""
    for name, path in SECTIONS.items():
        for key, value in run.section(path).items():
            if (number := finite(value)) is not None:
                yield f"{name}/{key}", number
