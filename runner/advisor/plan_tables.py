"""The output of `hydromel-plan`. Figures are never cut: the tables are about 110 columns wide, whatever the console."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from rich.table import Table

from runner.advisor.memory_estimate import MemoryUse
from runner.advisor.plan_report import PlannedStrategy, PlanReport
from runner.common.records import CandidateRecord
from runner.terminal.rich_tables import PlainConsole, plain_table

MIB = 2**20
MUCH_ALIKE = 1.5  # updates whose rows are this many times more alike in length than by chance are no random samples
KNOWN_WRONG = "unmasked"  # the layout whose results are known to be wrong
NOT_RUN = "not run"  # shown if this machine lacks a kernel
_RANKS_NOTE = (
    "speed and memory are those of one process: with ranks={ranks} each has a share of every update's rows, and with "
    "shard=full of the parameters, gradients and state of the optimiser"
)
_PIECES_NOTE = "padding, widths, tokens of batches and similar lengths count pieces of words, which the model reads"
Column = tuple[str, Callable[[PlannedStrategy], str]]

COST: list[Column] = [
    ("updates\nper epoch", lambda strategy: f"{strategy.quality.updates:,.0f}"),
    ("rows per\nupdate", lambda strategy: f"{strategy.quality.rows_per_update:.1f}"),
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
SPEED: list[tuple[str, Callable[[CandidateRecord], str]]] = [
    ("real tokens/s\npredicted", lambda cost: f"{cost['predicted_real_tokens_per_s']:,.0f}"),
    ("seconds\nper epoch", lambda cost: f"{cost['predicted_epoch_seconds']:,.1f}"),
    ("peak\nMiB", lambda cost: _mebibytes(cost["predicted_peak_bytes"])),
]
PIECES = ("pieces/s\npredicted", lambda cost: f"{cost.get('predicted_pieces_per_s', 0.0):,.0f}")
SHUFFLE: list[Column] = [
    ("tokens per\nupdate", lambda strategy: f"{strategy.quality.tokens.mean:,.0f}"),
    ("from - to\n", lambda strategy: f"{strategy.quality.tokens.smallest:,} - {strategy.quality.tokens.largest:,}"),
    ("varies\n%", lambda strategy: _percent(strategy.quality.tokens.variation)),
    ("similar\nlength %", lambda strategy: _percent(strategy.quality.alike_in_length.value)),
    ("by\nchance %", lambda strategy: _percent(strategy.quality.alike_in_length.chance)),
    ("targets\nx chance", lambda strategy: _number(strategy.quality.alike_in_targets.times_chance, 2)),
    ("length &\ntarget r", lambda strategy: _number(strategy.quality.length_target_correlation)),
    ("repeated\npairs %", lambda strategy: _percent(strategy.quality.repeated_pairs.value)),
    ("\nx chance", lambda strategy: _number(strategy.quality.repeated_pairs.times_chance, 2)),
]


def show(report: PlanReport) -> None:
    """Print the tables and notes of a report."""
    console = PlainConsole()
    mean, longest = report.lengths["mean"], report.lengths["longest"]
    line = f"{report.data}; {mean:,.1f} tokens per row, longest {longest:,}"
    if report.pieces is not None:
        line += f"; {report.pieces['mean']:,.1f} pieces per row, longest {report.pieces['longest']:,}"
    console.print(line, soft_wrap=True)
    memory = [(header, _of_memory(figure)) for header, figure in MEMORY]
    console.print(_table("Cost", [*COST, *memory], report.planned))
    if report.device is not None:
        figures = SPEED if report.pieces is None else [*SPEED, PIECES]
        speed = [(header, _of_prediction(figure)) for header, figure in figures]
        console.print(_table(f"Speed on {report.device}", speed, report.planned))
    console.print(_table("Shuffling", SHUFFLE, report.planned))
    for line in _notes(report):
        console.print(f"- {line}", soft_wrap=True)


def _of_memory(figure: Callable[[MemoryUse], str]) -> Callable[[PlannedStrategy], str]:
    return lambda strategy: NOT_RUN if strategy.memory is None else figure(strategy.memory)


def _of_prediction(figure: Callable[[CandidateRecord], str]) -> Callable[[PlannedStrategy], str]:
    return lambda strategy: figure(strategy.predicted) if strategy.predicted else NOT_RUN if strategy.not_run else "-"


def _table(title: str, columns: Sequence[Column], planned: Sequence[PlannedStrategy]) -> Table:
    table = plain_table("strategy\n", "batch\nsize", *(header for header, _ in columns), numbers=True)
    table.title, table.title_justify, table.collapse_padding = title, "left", True
    for strategy in planned:
        size = "-" if strategy.batch_size is None else str(strategy.batch_size)
        table.add_row(strategy.name, size, *(figure(strategy) for _, figure in columns))
    return table


def _notes(report: PlanReport) -> list[str]:
    planned = report.planned
    sizes_differ = len({strategy.batch_size for strategy in planned} - {None}) > 1
    same = _names_by(
        (strategy.digest, strategy.name + (f" ({strategy.batch_size})" if sizes_differ else "")) for strategy in planned
    )
    not_run = _names_by((strategy.not_run, strategy.name) for strategy in planned if strategy.not_run)
    # reasons that differ only in the strategy's name are listed once
    reasons = _names_by((why.replace(f"batching={name}", ""), name) for name, why in report.left_out.items())
    together = report.length_target_correlation
    memory = next((strategy.memory for strategy in planned if strategy.memory is not None), None)
    return [
        *(f"same updates: {', '.join(names)}" for names in same.values() if len(names) > 1),
        *(
            f"not run here: {len(names)} of {len(planned)} strategies ({', '.join(names)}): {kernel}"
            for kernel, names in not_run.items()
        ),
        *([] if report.pieces is None else [_PIECES_NOTE]),
        *([] if memory is None else [_memory_note(memory)]),
        *([] if report.ranks == 1 else [_RANKS_NOTE.format(ranks=report.ranks)]),
        *([] if together is None else [f"over all rows, length and target correlate with r {_number(together)}"]),
        f"epochs planned: {report.epochs}; docs/plan.md explains each figure",
        *(f"left out: {', '.join(names)}: {report.left_out[names[0]]}" for names in reasons.values()),
        *([] if report.device is None else [_recommended(planned)]),
    ]


def _names_by(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    names = defaultdict[str, list[str]](list)
    for key, name in pairs:
        names[key].append(name)
    return names


def _memory_note(memory: MemoryUse) -> str:
    return (
        "memory is estimated from small batches measured here: "
        f"parameters {_mebibytes(memory.parameter_bytes)} MiB, gradients {_mebibytes(memory.gradient_bytes)}, "
        f"optimiser {_mebibytes(memory.optimizer_bytes)}, data {_mebibytes(memory.data_bytes)}, "
        "plus the active memory above; the program itself and the workspaces of kernels are not included"
    )


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
        return f"nothing is recommended: {KNOWN_WRONG} is known to be wrong"
    ranked = [strategy for strategy, _ in sorted(known, key=lambda pair: -pair[1]["predicted_real_tokens_per_s"])]
    shuffled = [s for s in ranked if (s.quality.alike_in_length.times_chance or 1.0) < MUCH_ALIKE]
    leanest, _ = min(known, key=lambda pair: pair[1]["predicted_peak_bytes"])
    best = {"predicted fastest": ranked[:1], "fastest with shuffled updates": shuffled[:1], "least memory": [leanest]}
    named = [f"{what}: {_with_size(strategy)}" for what, few in best.items() for strategy in few]
    return "; ".join(named)


def _with_size(strategy: PlannedStrategy) -> str:
    return strategy.name if strategy.batch_size is None else f"{strategy.name} (batch size {strategy.batch_size})"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.2f}" if 0 < share < 0.01 else f"{100 * share:.1f}"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _mebibytes(n_bytes: float) -> str:
    return f"{n_bytes / MIB:,.1f}"
