"""Every figure of a run under one name, `test/f1` or `speed/real_tokens_per_s`, for CSV files and for baselines."""

from __future__ import annotations

from dataclasses import dataclass

from reporting.runs.run import Run
from runner.common.records import finite

MACHINE_SECTIONS = ("speed", "memory", "seconds", "energy", "arithmetic")  # comparable only on one machine
# the prefix of a figure's name, in MLflow and in conditions -> its section of result.json
SECTIONS = {"test": "metrics.test", "valid": "metrics.valid"} | {
    name: name for name in (*MACHINE_SECTIONS, "tokens", "padding", "characters", "updates", "model")
}
MIB = 2**20


@dataclass(frozen=True)
class RunFigures:
    """The identity of one run, its machine, and its figures by name."""

    run_id: str
    seed: int
    turn: int
    machine: tuple[str, ...]
    figures: dict[str, float]


def run_figures(run: Run) -> RunFigures:
    """Return every figure of a run: the finite numbers of all sections, without their tables (by type, by length)."""
    figures = {
        f"{name}/{key}": number
        for name, path in SECTIONS.items()
        for key, value in run.section(path).items()
        if (number := finite(value)) is not None
    }
    return RunFigures(run.result["run_id"], run.seed, run.turn, run.machine, figures)


def depends_on_machine(name: str) -> bool:
    """Return True if a figure depends on the machine that the run used."""
    return name.partition("/")[0] in MACHINE_SECTIONS


def amount(value: float, figure: str, sign: str = "") -> str:
    """Return a figure as text: bytes in MiB, others to four digits, or as whole numbers from 1,000 on."""
    if figure.endswith("_bytes"):
        return f"{value / MIB:{sign},.1f} MiB"
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4g}"
