"""Every figure of a run by one name, `test/f1` or `speed/real_tokens_per_s`: for CSV and comparisons with the past."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reporting.runs.run import Run

# sections of result.json by the name that figures have in MLflow and in conditions
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
OF_MACHINE = ("speed", "memory", "seconds", "energy", "arithmetic")  # mean nothing beside those of another machine


@dataclass(frozen=True)
class RunFigures:
    """One run: which it is, where it ran, and its figures by name."""

    run_id: str
    seed: int
    turn: int
    machine: tuple[str, ...]
    figures: dict[str, float]


def run_figures(run: Run) -> RunFigures:
    figures = dict(_figures(run))
    return RunFigures(run.text("run_id"), run.seed, run.turn, run.machine, figures)


def of_machine(name: str) -> bool:
    """Whether a figure depends on the machine."""
    return name.partition("/")[0] in OF_MACHINE


def amount(value: float, figure: str, sign: str = "") -> str:
    """In words: bytes in MiB; else three decimals at most, and none from a thousand on."""
    if figure.endswith("_bytes"):
        return f"{value / MIB:{sign},.1f} MiB"
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4g}"


def _figures(run: Run) -> Iterator[tuple[str, float]]:
    """Finite numbers; tables of detail (per type, by length) are not among them."""
    for name, path in SECTIONS.items():
        section: Any = run.value(path)
        if isinstance(section, Mapping):
            for key in section:
                if (value := run.number(f"{path}.{key}")) is not None:
                    yield f"{name}/{key}", value
