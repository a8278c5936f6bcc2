"""The tables of a group (quality, speed, padding and memory, device), those of changes, and notes on both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reporting.comparison.changes import SHORT, BaselineComparison, Change
from reporting.comparison.predicted import Prediction
from reporting.comparison.significance import QualityVerdict
from reporting.comparison.summary import RunGroup, StrategySummary
from reporting.runs.measures import MIB, amount
from reporting.statistics.intervals import Mean
from reporting.views import table_format as cells
from reporting.views.table_format import NONE, Cell, Table, TableColumn, decimal, filled, tenths, whole, without_empty

NAMES = {figure: short for short, figure in SHORT.items()}
LONG_NUMBER = 10  # longer numbers are shortened to six digits
KNOWN_WRONG, SIMPLEST = "known wrong", "simplest model"  # remarks below the name of a row


def tables(group: RunGroup, confidence: float) -> list[Table]:
    """Return the tables of a group, strategies in its order. Quality ends with the best of the simplest models."""
    quality = filled("Quality", _quality_columns(group, confidence), group.strategies)
    quality.rows.extend(_best_baseline(group, quality.columns))
    columns = {"Speed": _speed_columns(group), "Padding and memory": MEMORY, "Device": DEVICE}
    others = [filled(title, own, group.strategies) for title, own in columns.items()]
    # Columns that no run recorded are left out; a table with only the names of strategies is left out as a whole.
    shown = map(without_empty, (quality, *others, _advice_table(group.advice)))
    return [table for table in shown if len(table.columns) > 1]


def overviews(groups: list[RunGroup], confidence: float) -> list[Table]:
    """Return a table of all groups with one title, best on test first, to read an ablation from; none for one group."""
    by_title: dict[tuple[str, str], list[RunGroup]] = {}
    for group in groups:
        by_title.setdefault((group.title, group.metric), []).append(group)
    return [_overview(same_title, confidence) for same_title in by_title.values() if len(same_title) > 1]


def notes(group: RunGroup) -> list[str]:
    """Return notes on the tables: baselines, target, source of memory figures, machines."""
    lines = []
    if group.majority:
        units = {group.metric: group.unit}
        named = ", ".join(f"{name} {decimal(value, units.get(name, '%'))}" for name, value in group.majority.items())
        lines.append(
            f"On test, `majority`, which predicts the same whatever the text, gives {named} (docs/baselines.md)."
        )
    if len(group.baselines) > 1:
        named = ", ".join(f"{name} {decimal(value, group.unit)}" for name, value in group.baselines.items())
        lines.append(f"The simplest models, test {group.metric}: {named} (docs/baselines.md).")
    if (target := group.target.quality) is not None:
        worst = "the worst of the runs' best, so that every run reaches it"
        why = "given with --target" if group.target.given else worst
        lines.append(
            f"Target: {group.metric} {decimal(target, group.unit)} on valid ({why}). "
            "Its time is the training time, without evaluation and tracking, at the first evaluation that reached it."
        )
    if sources := sorted({source for strategy in group.strategies for source in strategy.memory_sources}):
        lines.append(f"Peak memory: {', '.join(sources)}.")
    lines += [sentence for strategy in group.strategies for sentence in strategy.halved]
    lines.append(f"Ran on {'; '.join(group.machines)}.")
    return lines + group.notes


def heading(group: RunGroup) -> str:
    """Return `tag · wnut17 · word · rnn (train.epochs=3)`."""
    return f"{group.title} ({settings_text(group)})" if group.settings else group.title


def settings_text(group: RunGroup) -> str:
    """Return `train.epochs=3, task.head=crf`, the settings that distinguish the group from others with its title."""
    return ", ".join(f"{name}={_short(value)}" for name, value in group.settings.items())


def _short(value: str) -> str:
    """Return a long number, such as 0.4292592188556814 drawn by a search, to six digits; other text unchanged."""
    try:
        return f"{float(value):.6g}" if len(value) > LONG_NUMBER else value
    except ValueError:
        return value


def _quality_columns(group: RunGroup, confidence: float) -> list[TableColumn]:
    together = f"{100 * (1 - (1 - confidence) / max(1, group.comparisons)):.4g} %"

    def minus(cell: Callable[[QualityVerdict], Cell]) -> Callable[[StrategySummary], Cell]:
        return lambda strategy: Cell(NONE) if strategy.against_padmask is None else cell(strategy.against_padmask)

    def plain(value: float) -> str:
        return decimal(value, group.unit)

    def with_sign(value: float) -> str:
        return cells.signed(value, group.unit)

    own = f"{group.split} {group.metric}"
    return [
        STRATEGY,
        TableColumn("seeds", "", lambda strategy: Cell(str(len(strategy.run_ids)))),
        TableColumn(own, f"± {100 * confidence:g} %", lambda strategy: cells.mean(strategy.quality, plain, plain)),
        TableColumn("minus padmask", f"± {together}", minus(lambda v: cells.mean(v.difference, with_sign, plain))),
        TableColumn("on examples", together, minus(lambda v: cells.interval(v.on_examples, with_sign)), wraps=True),
        TableColumn("verdict", "", minus(lambda v: Cell(v.says)), is_text=True, wraps=True),
    ]


def _speed_columns(group: RunGroup) -> list[TableColumn]:
    def thousands(value: float) -> str:
        return tenths(value / 1000)

    columns = [
        STRATEGY,
        SPEED,
        PIECES,
        TableColumn("vs padmask", "times", lambda strategy: cells.ratio((v := strategy.against_padmask) and v.ratio)),
        TableColumn("vs size1", "times", lambda strategy: cells.ratio(strategy.speedup_over_size1)),
        TableColumn("to target", "s", lambda strategy: cells.reached(strategy.seconds_to_target, cells.seconds)),
        TableColumn("to target", "1,000 tokens", lambda own: cells.reached(own.tokens_to_target, thousands)),
    ]
    return columns if group.target.quality is not None else columns[:-2]


def _advice_table(predictions: Sequence[Prediction]) -> Table:
    """Return the table of predicted and measured speed and memory, a row for each prediction."""

    def figure(value: float | None, unit: float) -> Cell:
        return Cell(NONE if value is None else whole(value / unit))

    def error(predicted: float, measured: float | None) -> Cell:  # in percent of the measurement
        return Cell(f"{100 * (predicted / measured - 1):+.0f}" if measured else NONE)

    columns = [
        TableColumn("strategy", "", lambda row: Cell(row.name, "chosen" if row.chosen else ""), is_text=True),
        TableColumn("batch", "size", lambda row: Cell(NONE if row.batch_size is None else str(row.batch_size))),
        TableColumn("predicted", "tokens/s", lambda row: figure(row.predicted_tokens_per_s, 1)),
        TableColumn("measured", "tokens/s", lambda row: figure(row.tokens_per_s, 1)),
        TableColumn("error", "speed, %", lambda row: error(row.predicted_tokens_per_s, row.tokens_per_s)),
        TableColumn("predicted", "MiB", lambda row: figure(row.predicted_peak_bytes, MIB)),
        TableColumn("measured", "MiB", lambda row: figure(row.peak_bytes, MIB)),
        TableColumn("error", "peak, %", lambda row: error(row.predicted_peak_bytes, row.peak_bytes)),
    ]
    return filled("Predicted and measured", columns, predictions)


def _overview(groups: list[RunGroup], confidence: float) -> Table:
    def columns(group: RunGroup) -> list[TableColumn]:
        settings = TableColumn(group.title, "", lambda _: Cell(settings_text(group)), is_text=True, wraps=True)
        return [settings, *_quality_columns(group, confidence)[:3], SPEED]

    def sort_key(row: tuple[RunGroup, StrategySummary]) -> float:
        quality = row[1].quality
        return math.inf if quality is None else -quality.mean if row[0].higher_is_better else quality.mean

    rows = sorted(((group, strategy) for group in groups for strategy in group.strategies), key=sort_key)
    shown = [[column.cell(strategy) for column in columns(group)] for group, strategy in rows]
    return without_empty(Table("Settings, best first", columns(groups[0]), shown))


def _best_baseline(group: RunGroup, columns: list[TableColumn]) -> list[list[Cell]]:
    """Return the row of the best baseline, if there is one; only its quality is known."""
    if not group.baselines:
        return []
    name, value = next(iter(group.baselines.items()))
    known = {"strategy": Cell(name, SIMPLEST), f"{group.split} {group.metric}": Cell(decimal(value, group.unit))}
    return [[known.get(column.header, Cell("" if column.is_text else NONE)) for column in columns]]


def _name(strategy: StrategySummary) -> Cell:
    chose = f"chose {', '.join(strategy.chose)}" if strategy.chose else ""
    return Cell(strategy.name, KNOWN_WRONG if strategy.known_wrong else chose)


def _peak_batch(strategy: StrategySummary) -> Cell:
    """Return the shape of the micro-batch that needed most memory."""
    batch = strategy.peak_batch
    if batch is None:
        return Cell(NONE)
    return Cell(f"{batch['rows']:,} × {batch['width']:,}", f"{batch['tokens']:,} tokens")


def change_tables(history: BaselineComparison) -> list[Table]:
    """Return one table per group, with a row for each strategy and figure."""
    by_heading: dict[str, list[Change]] = {}
    for change in history.changes:
        by_heading.setdefault(change.heading, []).append(change)
    level = f"± {100 * history.level:.4g} %"

    def pairs(change: Change) -> str:
        return f"{change.difference.n} pair{'s' if change.difference.n > 1 else ''}"

    def signed(figure: str) -> Callable[[float], str]:
        return lambda value: amount(value, figure, "+")

    def symmetric(value: Mean | None, figure: str) -> Cell:
        return cells.mean(value, signed(figure), lambda half: amount(half, figure), "no interval")

    columns = [
        TableColumn("strategy", "", lambda change: Cell(change.strategy, pairs(change)), is_text=True),
        TableColumn("figure", "", lambda change: Cell(NAMES.get(change.figure, change.figure)), True, wraps=True),
        TableColumn("before", "", lambda change: Cell(amount(change.before, change.figure))),
        TableColumn("now", "", lambda change: Cell(amount(change.now, change.figure))),
        TableColumn("change", level, lambda change: symmetric(change.difference, change.figure)),
        TableColumn(
            "on examples", "", lambda change: cells.interval(change.on_examples, signed(change.figure)), wraps=True
        ),
        TableColumn("change, %", level, lambda change: symmetric(change.percent, "")),
    ]
    return [
        without_empty(filled(f"Changes since {history.baseline}: {heading}", columns, changes))
        for heading, changes in by_heading.items()
    ]


def change_lines(history: BaselineComparison) -> list[str]:
    """Return lines on the baseline, the level of intervals, what could not be compared, and each condition."""
    sentences = [
        f"Changes since {history.baseline}: means over runs paired by seed, now minus before; intervals at "
        f"{100 * history.level:.4g} % each, so that those of all strategies hold at once."
    ]
    sentences += [f"Not compared with the baseline: {line.removesuffix('.')}." for line in history.unmatched]
    return sentences + [f"{'FAILED: ' if verdict.failed else ''}{verdict.says}." for verdict in history.judged]


STRATEGY = TableColumn("strategy", "", _name, is_text=True)
SPEED = TableColumn("speed", "real tokens/s", lambda strategy: cells.spread(strategy.real_tokens_per_s, whole))
PIECES = TableColumn("speed", "pieces/s", lambda strategy: cells.spread(strategy.pieces_per_s, whole))
MEMORY = [
    STRATEGY,
    TableColumn("padding", "% of tokens", lambda strategy: Cell(cells.percent(strategy.padding_share))),
    TableColumn("padding", "% of pieces", lambda strategy: Cell(cells.percent(strategy.piece_padding))),
    TableColumn("padding", "% of characters", lambda strategy: Cell(cells.percent(strategy.character_padding))),
    TableColumn("peak", "MiB", lambda strategy: cells.spread(strategy.peak_memory_bytes, lambda v: whole(v / MIB))),
    TableColumn("set by", "rows × width", _peak_batch),
]
DEVICE = [
    STRATEGY,
    TableColumn("matrix rate", "% of device's", lambda strategy: cells.spread(strategy.matrix_share, cells.percent)),
    TableColumn("energy", "J/1,000 tokens", lambda strategy: cells.spread(strategy.joules_per_thousand_tokens, tenths)),
    TableColumn("kernel", "", lambda strategy: Cell("; ".join(strategy.kernels) or NONE), is_text=True, wraps=True),
]
