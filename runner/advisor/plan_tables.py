"""The output of `hydromel-plan`. Figures are never cut: the tables are about 110 columns wide, whatever the console."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from runner.advisor.advisor import Predicted
from runner.advisor.memory_estimate import Memory
from runner.advisor.plan_report import Planned, Report
from runner.batching.shuffle_quality import Share

WIDEST = 1000  # columns; tables take what they need
MIB = 2**20
MUCH_ALIKE = 1.5  # times chance, in length: above it updates are no random samples
KNOWN_WRONG = "unmasked"  # a layout
NOT_RUN = "not run"  # this machine lacks a kernel
Column = tuple[str, Callable[[Planned], str]]

COST: list[Column] = [
    ("updates\nan epoch", lambda one: f"{one.quality.updates:,.0f}"),
    ("rows an\nupdate", lambda one: f"{one.quality.rows_per_update:.1f}"),
    ("full\n%", lambda one: _percent(one.quality.fill_rate)),
    ("padding\n%", lambda one: _percent(sum(one.padding.values()))),
    ("spread+last\n+rounding", lambda one: "+".join(f"{100 * share:.1f}" for share in one.padding.values())),
]
MEMORY: list[tuple[str, Callable[[Memory], str]]] = [
    ("largest\nbatch", lambda memory: f"{memory.rows} x {memory.width:,}"),
    ("its\ntokens", lambda memory: f"{memory.tokens:,}"),
    ("active\nMiB", lambda memory: _mebibytes(memory.activation_bytes)),
    ("training\nMiB", lambda memory: _mebibytes(memory.training_bytes)),
    ("evaluation\nMiB", lambda memory: _mebibytes(memory.evaluation_bytes)),
]
SPEED: list[tuple[str, Callable[[Predicted], str]]] = [
    ("real tokens/s\npredicted", lambda one: f"{one.predicted_real_tokens_per_s:,.0f}"),
    ("seconds\nan epoch", lambda one: f"{one.predicted_epoch_seconds:,.1f}"),
    ("peak\nMiB", lambda one: _mebibytes(one.predicted_peak_bytes)),
]
SHUFFLE: list[Column] = [
    ("tokens an\nupdate", lambda one: f"{one.quality.tokens.mean:,.0f}"),
    ("from - to\n", lambda one: f"{one.quality.tokens.smallest:,} - {one.quality.tokens.largest:,}"),
    ("varies\n%", lambda one: _percent(one.quality.tokens.variation)),
    ("alike in\nlength %", lambda one: _percent(one.quality.alike_in_length.value)),
    ("by\nchance %", lambda one: _percent(one.quality.alike_in_length.chance)),
    ("in answers\nx chance", lambda one: _times(one.quality.alike_in_answers)),
    ("length &\nanswer r", lambda one: _number(one.quality.length_tells_answer)),
    ("pairs\nagain %", lambda one: _percent(one.quality.repeated_pairs.value)),
    ("\nx chance", lambda one: _times(one.quality.repeated_pairs)),
]


def show(report: Report) -> None:
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


def _of_memory(figure: Callable[[Memory], str]) -> Callable[[Planned], str]:
    return lambda one: NOT_RUN if one.memory is None else figure(one.memory)


def _of_prediction(figure: Callable[[Predicted], str]) -> Callable[[Planned], str]:
    return lambda one: (NOT_RUN if one.not_run else "-") if one.predicted is None else figure(one.predicted)


def _recommended(planned: Sequence[Planned]) -> str:
    """The fastest, the fastest of those whose updates are random samples, and what needs least memory."""
    known = [(one, one.predicted) for one in planned if one.predicted is not None and one.layout != KNOWN_WRONG]
    if not known and any(one.not_run for one in planned):
        return "nothing is recommended: this machine runs none of the strategies"
    if not known:
        return "nothing is recommended: what is planned is known to be wrong"

    def called(one: Planned) -> str:
        return one.name if one.batch_size is None else f"{one.name} {one.batch_size}"

    def rate(pair: tuple[Planned, Predicted]) -> float:
        return pair[1].predicted_real_tokens_per_s

    said = [f"fastest {called(max(known, key=rate)[0])}"]
    if shuffled := [pair for pair in known if (pair[0].quality.alike_in_length.times_chance or 1.0) < MUCH_ALIKE]:
        said.append(f"fastest of shuffled updates {called(max(shuffled, key=rate)[0])}")
    said.append(f"least memory {called(min(known, key=lambda pair: pair[1].predicted_peak_bytes)[0])}")
    return f"predicted: {', '.join(said)}"


def _table(title: str, columns: Sequence[Column], planned: Sequence[Planned]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.title_justify = "left"
    table.add_column("strategy\n", no_wrap=True)
    for header in ("batch\nsize", *(header for header, _ in columns)):
        table.add_column(header, justify="right", no_wrap=True)
    for one in planned:
        size = "-" if one.batch_size is None else str(one.batch_size)
        table.add_row(one.name, size, *(figure(one) for _, figure in columns))
    return table


def _same(planned: Sequence[Planned]) -> list[str]:
    """Which strategies make the same updates."""
    sizes_differ = len({one.batch_size for one in planned} - {None}) > 1
    by_digest: dict[str, list[str]] = {}
    for one in planned:
        size = f" ({one.batch_size})" if sizes_differ else ""
        by_digest.setdefault(one.digest, []).append(one.name + size)
    return [f"same updates: {', '.join(names)}" for names in by_digest.values() if len(names) > 1]


def _notes(report: Report) -> list[str]:
    memory = next((one.memory for one in report.planned if one.memory is not None), None)
    estimate = (
        []
        if memory is None
        else [
            "memory is an estimate from small batches run here, without the program itself and kernels' workspaces: "
            f"parameters {_mebibytes(memory.parameter_bytes)} MiB, gradients {_mebibytes(memory.gradient_bytes)}, "
            f"optimiser {_mebibytes(memory.optimizer_bytes)}, data {_mebibytes(memory.data_bytes)}, and what is active"
        ]
    )
    return [
        *_not_run(report.planned),
        *estimate,
        f"over all rows, length tells the answer with r {_number(report.length_tells_answer)}",
        f"epochs planned: {report.epochs}; docs/plan.md says what each figure is",
    ]


def _not_run(planned: Sequence[Planned]) -> list[str]:
    """Return a line for each kernel that this machine lacks, with the strategies that need it."""
    by_reason: dict[str, list[str]] = {}
    for one in planned:
        if one.not_run:
            by_reason.setdefault(one.not_run, []).append(one.name)
    return [
        f"not run here: {len(names)} of {len(planned)} strategies ({', '.join(names)}): {reason}"
        for reason, names in by_reason.items()
    ]


def _left_out(left_out: dict[str, str]) -> list[str]:
    """Strategies that do not fit, those of one reason (but for their names) together."""
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
