"""Figures of a run by name, measures of it (quality, speed, padding, memory), and both over runs of one strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from reporting.runs.run import Run
from reporting.statistics.intervals import Slot
from runner.common.records import SECONDS_KEYS, PeakBatchRecord, finite

Measure = Callable[[Run], float | None]
PHASES = tuple(key for key in SECONDS_KEYS if key != "total")
MACHINE_SECTIONS = ("speed", "memory", "seconds", "energy", "arithmetic")  # comparable only on one machine
# the prefix of a figure's name, in MLflow and in conditions -> its section of result.json
SECTIONS = (
    {"test": "metrics.test", "valid": "metrics.valid"}
    | {name: name for name in (*MACHINE_SECTIONS, "tokens", "padding", "characters", "updates", "model")}
    | {"pieces": "counters.pieces"}
)
MIB = 2**20


@dataclass(frozen=True)
class RunFigures:
    """The identity of one run, its machine, and its figures by name."""

    run_id: str
    seed: int
    turn: int
    machine: tuple[str, ...]
    figures: dict[str, float]

    @property
    def slot(self) -> Slot:
        """Seed, turn and machine: speeds of two strategies are compared between runs in which they agree."""
        return self.seed, self.turn, self.machine


@dataclass(frozen=True)
class LengthRate:
    """The speed of the updates whose longest row had more than half of `longest` tokens, and at most `longest`."""

    longest: int
    real_tokens_per_s: float


def figure(path: str) -> Measure:
    """Return the measure that reads the finite number at a dotted path of result.json."""
    return lambda run: run.number(path)


def quality(run: Run) -> float | None:
    """Return the run's quality: its metric on test, or on valid where the data has no test."""
    return run.number(f"metrics.{run.split}.{run.metric}")


speed = figure("speed.real_tokens_per_s")


def padding_share(path: str, section: str = "tokens") -> Measure:
    """Return the measure of the padding at `path`, a share (0 to 1) of all positions, real and padded, of `section`."""

    def share(run: Run) -> float | None:
        part, real, padded = map(run.number, (path, f"{section}.real", f"{section}.padded"))
        if part is None or real is None or padded is None or real + padded == 0:
            return None
        return part / (real + padded)

    return share


def cause_share(cause: str) -> Measure:
    """Return the measure of the padding with a cause, a share (0 to 1) of all positions that the model computes."""
    of_tokens, of_pieces = padding_share(f"padding.{cause}"), padding_share(f"padding.{cause}", "counters.pieces")
    return lambda run: of_tokens(run) if (share := of_pieces(run)) is None else share


# padding of the characters that character models read
character_padding = padding_share("characters.padded", "characters")
# padding of the pieces that pretrained transformers read
piece_padding = padding_share("counters.pieces.padded", "counters.pieces")


def by_seed(runs: Mapping[int, Run], measure: Measure) -> dict[int, float]:
    """Return the measure of each seed's run, of those that have it."""
    return {seed: value for seed, run in runs.items() if (value := measure(run)) is not None}


def by_slot(runs: Iterable[Run], measure: Measure) -> dict[Slot, float]:
    """Return the measure by (seed, turn, machine): runs of two strategies are paired when these agree."""
    return {run.slot: value for run in runs if (value := measure(run)) is not None}


def values(runs: Iterable[Run], measure: Measure) -> list[float]:
    """Return the measure of every run that has it."""
    return [value for run in runs if (value := measure(run)) is not None]


def mean(runs: Iterable[Run], measure: Measure) -> float | None:
    """Return the mean over the runs that have this measure; None if none has."""
    measured = values(runs, measure)
    return sum(measured) / len(measured) if measured else None


def means(runs: list[Run], measures: Mapping[str, Measure]) -> dict[str, float]:
    """Return the means of those measures that at least one run has."""
    return {name: value for name, measure in measures.items() if (value := mean(runs, measure)) is not None}


def texts(runs: Iterable[Run], path: str) -> list[str]:
    """Return the different texts at a dotted path of result.json, sorted."""
    return sorted({text for run in runs if (text := run.text(path))})


def length_rates(runs: Iterable[Run]) -> list[LengthRate]:
    """Return real tokens per second by the longest row of an update: tokens of all runs over their seconds."""
    # Tokens and seconds are summed before dividing: a mean of rates would overrate runs with few updates of a length.
    sums: dict[int, list[float]] = {}
    for run in runs:
        for length in run.result.get("speed", {}).get("by_length", []):
            total = sums.setdefault(length["longest"], [0.0, 0.0])
            total[0] += length["real_tokens"]
            total[1] += length["seconds"]
    return [LengthRate(longest, tokens / seconds) for longest, (tokens, seconds) in sorted(sums.items()) if seconds > 0]


def peak_batch(runs: Iterable[Run]) -> PeakBatchRecord | None:
    """Return the micro-batch that needed most memory, from the run with the highest peak."""
    memory = [run.result.get("memory", {}) for run in runs]
    peaks = [(figures.get("peak_bytes", 0), batch) for figures in memory if (batch := figures.get("peak_batch"))]
    return max(peaks, key=lambda peak: peak[0])[1] if peaks else None


def halvings(runs: Iterable[Run]) -> list[str]:
    """Return a sentence for each run that ran out of memory and continued with smaller micro-batches."""
    sentences = []
    for run in runs:
        sizes = run.result.get("memory", {}).get("micro_batch")
        if sizes and sizes["halved_at"]:
            # number 0 is the trial before training
            during = [str(number) for number in sizes["halved_at"] if number]
            parts = ["before training"] if 0 in sizes["halved_at"] else []
            parts += [f"in update{'s' if during[1:] else ''} {', '.join(during)}"] if during else []
            rows = "all rows of an update" if sizes["asked"] is None else f"{sizes['asked']} rows"
            sentences.append(
                f"{run.strategy} seed {run.seed} ran out of memory {' and '.join(parts)}: its micro-batch went from "
                f"{rows} to {sizes['used']}; the updates stayed the same."
            )
    return sentences


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
