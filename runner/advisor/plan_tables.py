"""The output of `hydromel-plan`. Figures are never cut: the tables are about 110 columns wide, whatever the console."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from runner.advisor.advisor import PredictedCost
from runner.advisor.memory_estimate import MemoryUse
from runner.advisor.plan_report import PlannedStrategy, PlanReport
from runner.batching.shuffle_quality import Share

WIDEST = 1000  # columns; tables take as many as they need
MIB = 2**20
MUCH_ALIKE = 1.5  # similarity in length, as a multiple of chance, above which updates are no random samples
KNOWN_WRONG = "unmasked"  # the layout whose results are known to be wrong
NOT_RUN = "not run"  # shown if this machine lacks a kernel
Column = tuple[str, Callable[[PlannedStrategy], str]]

COST: list[Column] = [
    ("updates\nan epoch", lambda strategy: f"{strategy.quality.updates:,.0f}"),
    ("rows an\nupdate", lambda strategy: f"{strategy.quality.rows_per_update:.1f}"),
    ("full\n%", lambda strategy: _percent(strategy.quality.fill_rate)),
    ("padding\n%", lambda strategy: _percent(sum(strategy.padding.values()))),
    ("spread+last\n+rounding", lambda strategy: "+".join(f"{100 * share:.1f}" for share in strategy.padding.values())),
]
MEMORY: list[tuple[str, Callable[[MemoryUse], str]]] = [
    ("largest\nbatch", lambda memory: f"{memory.rows} x {memory.width:,}"),
    ("its\ntokens", lambda memory: f"{memory.tokens:,}"),
    ("active\nMiB", lambda memory: _mebibytes(memory.activation_bytes)),
    ("training\nMiB", lambda memory: _mebibytes(memory.training_bytes)),
    ("evaluation\nMiB", lambda memory: _mebibytes(memory.evaluation_bytes)),
]
SPEED: list[tuple[str, Callable[[PredictedCost], str]]] = [
    ("real tokens/s\npredicted", lambda cost: f"{cost.predicted_real_tokens_per_s:,.0f}"),
    ("seconds\nan epoch", lambda cost: f"{cost.predicted_epoch_seconds:,.1f}"),
    ("peak\nMiB", lambda cost: _mebibytes(cost.predicted_peak_bytes)),
]
SHUFFLE: list[Column] = [
    ("tokens an\nupdate", lambda strategy: f"{strategy.quality.tokens.mean:,.0f}"),
    ("from - to\n", lambda strategy: f"{strategy.quality.tokens.smallest:,} - {strategy.quality.tokens.largest:,}"),
    ("varies\n%", lambda strategy: _percent(strategy.quality.tokens.variation)),
    ("alike in\nlength %", lambda strategy: _percent(strategy.quality.alike_in_length.value)),
    ("by\nchance %", lambda strategy: _percent(strategy.quality.alike_in_length.chance)),
    ("in answers\nx chance", lambda strategy: _times(strategy.quality.alike_in_answers)),
    ("length &\nanswer r", lambda strategy: _number(strategy.quality.length_tells_answer)),
    ("pairs\nagain %", lambda strategy: _percent(strategy.quality.repeated_pairs.value)),
    ("\nx chance", lambda strategy: _times(strategy.quality.repeated_pairs)),
]


def show(report: PlanReport) -> None:
    """Print the tables and notes of a report."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    console = Console(width=WIDEST, markup=False, highlight=False, emoji=False)
    mean, longest = report.lengths["mean"], report.lengths["longest"]
    console.print(f"{report.data}; {mean:,.1f} tokens a row, longest {longest:,}", soft_wrap=True)
    memory = [(header, _of_memory(figure)) for header, figure in MEMORY]
    console.print(_table("What it takes", [*COST, *memory], report.planned))
    if report.device is not None:
        speed = [(header, _of_prediction(figure)) for header, figure in SPEED]
        console.print(_table(f"How fast it would be here, on {report.device}", speed, report.planned))
    console.print(_table("How well it shuffles", SHUFFLE, report.planned))
    recommended = [] if report.device is None else [_recommended(report.planned)]
    for line in [*_same(report.planned), *_notes(report), *_left_out(report.left_out), *recommended]:
        console.print(f"- {line}", soft_wrap=True)


def _of_memory(figure: Callable[[MemoryUse], str]) -> Callable[[PlannedStrategy], str]:
    return lambda strategy: NOT_RUN if strategy.memory is None else figure(strategy.memory)


def _of_prediction(figure: Callable[[PredictedCost], str]) -> Callable[[PlannedStrategy], str]:
    def shown(strategy: PlannedStrategy) -> str:
        if strategy.predicted is None:
            return NOT_RUN if strategy.not_run else "-"
        return figure(strategy.predicted)

    return shown


def _recommended(planned: Sequence[PlannedStrategy]) -> str:
    """Name the fastest strategy, the fastest whose updates are random samples, and the one with the least memory."""
    known = [
        (strategy, strategy.predicted)
        for strategy in planned
        if strategy.predicted is not None and strategy.layout != KNOWN_WRONG
    ]
    if not known and any(strategy.not_run for strategy in planned):
        return "nothing is recommended: this machine runs none of the strategies"
    if not known:
        return "nothing is recommended: what is planned is known to be wrong"

    def title(strategy: PlannedStrategy) -> str:
        return strategy.name if strategy.batch_size is None else f"{strategy.name} {strategy.batch_size}"

    def rate(pair: tuple[PlannedStrategy, PredictedCost]) -> float:
        return pair[1].predicted_real_tokens_per_s

    best = [f"fastest {title(max(known, key=rate)[0])}"]
    if shuffled := [pair for pair in known if (pair[0].quality.alike_in_length.times_chance or 1.0) < MUCH_ALIKE]:
        best.append(f"fastest of shuffled updates {title(max(shuffled, key=rate)[0])}")
    best.append(f"least memory {title(min(known, key=lambda pair: pair[1].predicted_peak_bytes)[0])}")
    return f"predicted: {', '.join(best)}"


def _table(title: str, columns: Sequence[Column], planned: Sequence[PlannedStrategy]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.title_justify = "left"
    table.add_column("strategy\n", no_wrap=True)
    for header in ("batch\nsize", *(header for header, _ in columns)):
        table.add_column(header, justify="right", no_wrap=True)
    for strategy in planned:
        size = "-" if strategy.batch_size is None else str(strategy.batch_size)
        table.add_row(strategy.name, size, *(figure(strategy) for _, figure in columns))
    return table


def _same(planned: Sequence[PlannedStrategy]) -> list[str]:
    """Return a line for each group of strategies that make the same updates."""
    sizes_differ = len({strategy.batch_size for strategy in planned} - {None}) > 1
    by_digest: dict[str, list[str]] = {}
    for strategy in planned:
        size = f" ({strategy.batch_size})" if sizes_differ else ""
        by_digest.setdefault(strategy.digest, []).append(strategy.name + size)
    return [f"same updates: {', '.join(names)}" for names in by_digest.values() if len(names) > 1]


def _notes(report: PlanReport) -> list[str]:
    notes = _not_run(report.planned)
    memory = next((strategy.memory for strategy in report.planned if strategy.memory is not None), None)
    if memory is not None:
        notes.append(
            "memory is an estimate from small batches run here, without the program itself and kernels' workspaces: "
            f"parameters {_mebibytes(memory.parameter_bytes)} MiB, gradients {_mebibytes(memory.gradient_bytes)}, "
            f"optimiser {_mebibytes(memory.optimizer_bytes)}, data {_mebibytes(memory.data_bytes)}, and what is active"
        )
    return [
        *notes,
        f"over all rows, length and answer correlate with r {_number(report.length_tells_answer)}",
        f"epochs planned: {report.epochs}; docs/plan.md explains each figure",
    ]


def _not_run(planned: Sequence[PlannedStrategy]) -> list[str]:
    """Return a line for each kernel that this machine lacks, with the strategies that need it."""
    by_reason: dict[str, list[str]] = {}
    for strategy in planned:
        if strategy.not_run:
            by_reason.setdefault(strategy.not_run, []).append(strategy.name)
    return [
        f"not run here: {len(names)} of {len(planned)} strategies ({', '.join(names)}): {reason}"
        for reason, names in by_reason.items()
    ]


def _left_out(left_out: dict[str, str]) -> list[str]:
    """Return a line for each reason why strategies do not fit; reasons that differ only in the name are one."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        by_reason.setdefault(reason.replace(f"batching={name}", ""), []).append(name)
    return [f"left out: {', '.join(names)}: {left_out[names[0]]}" for names in by_reason.values()]


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.2f}" if 0 < share < 0.01 else f"{100 * share:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _times(share: Share) -> str:
    return "-" if share.times_chance is None else f"{share.times_chance:.2f}"


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / MIB:,.1f}"
