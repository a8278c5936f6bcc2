"""What a comparison's tables hold: quality, speed, padding and memory, a row a strategy; and notes to read them by."""

from __future__ import annotations

import math
from collections.abc import Callable

from reporting.comparison.significance import Verdict
from reporting.comparison.summary import Group, Strategy
from reporting.statistics.intervals import Mean
from reporting.views import table_format
from reporting.views.predicted_table import advice_table
from reporting.views.table_format import NONE, Cell, Column, Table, decimal

LONG_NUMBER = 10  # characters
KNOWN_WRONG, SIMPLEST = "known wrong", "simplest model"  # what rows say below their name


def tables(group: Group, confidence: float) -> list[Table]:
    """A row a strategy, in the group's order. Below quality the best of the simplest models."""
    quality, *others = (
        Table(title, columns, [[column.cell(strategy) for column in columns] for strategy in group.strategies])
        for title, columns in (
            ("Quality", _quality_columns(group, confidence)),
            ("Speed", _speed_columns(group)),
            ("Padding and memory", _memory_columns()),
            ("Device", _device_columns()),
        )
    )
    quality.rows.extend(_best_baseline(group, quality.columns))
    shown = [table_format.without_empty(table) for table in (quality, *others)]
    shown += [table] if (table := advice_table(group.advice)) else []
    return [table for table in shown if len(table.columns) > 1]


def overviews(groups: list[Group], confidence: float) -> list[Table]:
    """Groups of one title in one table, best on test first: what an ablation is read from. None for a single group."""
    alike: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        alike.setdefault((group.title, group.metric), []).append(group)
    return [_overview(several, confidence) for several in alike.values() if len(several) > 1]


def notes(group: Group) -> list[str]:
    """What a reader needs to read the tables: baselines, target, how memory was measured, on what."""
    said = []
    if group.majority:
        named = ", ".join(f"{name} {decimal(value, name)}" for name, value in group.majority.items())
        said.append(f"Always answering the most frequent label of train gets on test: {named}.")
    if len(group.baselines) > 1:
        named = ", ".join(f"{name} {decimal(value, group.metric)}" for name, value in group.baselines.items())
        said.append(f"The simplest models, test {group.metric}: {named} (docs/baselines.md).")
    aim = group.target.quality
    if aim is not None:
        why = (
            "given with --target" if group.target.given else "the worst of the runs' best, so that every run gets there"
        )
        said.append(
            f"Target: {group.metric} {decimal(aim, group.metric)} on valid ({why}). "
            "Seconds are of training, evaluation and tracking left out, at the first evaluation that reached it."
        )
    sources = sorted({source for strategy in group.strategies for source in strategy.memory_sources})
    if sources:
        said.append(f"Peak memory: {', '.join(sources)}.")
    said += [sentence for strategy in group.strategies for sentence in strategy.halved]
    said.append(f"Ran on {'; '.join(group.machines)}.")
    return said + group.notes


def heading(group: Group) -> str:
    """`tag · wnut17 · word · rnn (train.epochs=3)`."""
    return f"{group.title} ({of_group(group)})" if group.settings else group.title


def of_group(group: Group) -> str:
    """`train.epochs=3, task.head=crf`: what sets it apart from others of its title."""
    return ", ".join(f"{name}={_short(value)}" for name, value in group.settings.items())


def _short(value: str) -> str:
    """A number that was drawn at random, 0.4292592188556814, to six digits; any other text as it is."""
    try:
        return f"{float(value):.6g}" if len(value) > LONG_NUMBER else value
    except ValueError:
        return value


def _quality_columns(group: Group, confidence: float) -> list[Column]:
    together = f"{100 * (1 - (1 - confidence) / max(1, group.comparisons)):.4g} %"

    def minus(cell: Callable[[Verdict], Cell]) -> Callable[[Strategy], Cell]:
        return lambda strategy: Cell(NONE) if strategy.against_padmask is None else cell(strategy.against_padmask)

    def quality(value: Mean | None) -> Cell:
        return table_format.mean(value, group.metric, decimal)

    return [
        Column("strategy", "", _name, is_text=True),
        Column("seeds", "", lambda strategy: Cell(str(len(strategy.run_ids)))),
        Column(
            f"{group.split} {group.metric}", f"± {100 * confidence:g} %", lambda strategy: quality(strategy.quality)
        ),
        Column(
            "minus padmask",
            f"± {together}",
            minus(lambda v: table_format.mean(v.difference, group.metric, table_format.signed)),
        ),
        Column(
            "on examples", together, minus(lambda v: table_format.interval(v.on_examples, group.metric)), wraps=True
        ),
        Column("verdict", "", minus(lambda v: Cell(v.says)), is_text=True, wraps=True),
    ]


def _speed_columns(group: Group) -> list[Column]:
    columns = [
        Column("strategy", "", _name, is_text=True),
        SPEED,
        Column(
            "vs padmask", "times", lambda each: table_format.ratio(v.ratio if (v := each.against_padmask) else None)
        ),
        Column("vs size1", "times", lambda each: table_format.ratio(each.speedup_over_size1)),
    ]
    if group.target.quality is None:
        return columns
    return [
        *columns,
        Column("to target", "s", lambda each: table_format.reached(each.seconds_to_target, table_format.seconds)),
        Column(
            "to target",
            "1,000 tokens",
            lambda each: table_format.reached(each.tokens_to_target, table_format.thousands),
        ),
    ]


def _memory_columns() -> list[Column]:
    return [
        Column("strategy", "", _name, is_text=True),
        Column("padding", "% of tokens", lambda each: Cell(table_format.percent(each.padding_share))),
        Column("padding", "% of characters", lambda each: Cell(table_format.percent(each.character_padding))),
        Column(
            "peak",
            "MiB",
            lambda each: table_format.spread(each.peak_memory_bytes, lambda v: table_format.whole(v / 2**20)),
        ),
        Column("set by", "rows × width", _peak_batch),
    ]


def _device_columns() -> list[Column]:
    return [
        Column("strategy", "", _name, is_text=True),
        Column(
            "matrix rate", "% of device's", lambda each: table_format.spread(each.matrix_share, table_format.percent)
        ),
        Column(
            "energy",
            "J/1,000 tokens",
            lambda each: table_format.spread(each.joules_per_thousand_tokens, table_format.tenths),
        ),
        Column("kernel", "", lambda each: Cell("; ".join(each.kernels) or NONE), is_text=True, wraps=True),
    ]


def _overview(groups: list[Group], confidence: float) -> Table:
    def columns(group: Group) -> list[Column]:
        strategy, seeds, quality = _quality_columns(group, confidence)[:3]
        settings = Column(group.title, "", lambda _: Cell(of_group(group)), is_text=True, wraps=True)
        return [settings, strategy, seeds, quality, SPEED]

    def worse(row: tuple[Group, Strategy]) -> float:
        mean = row[1].quality
        return math.inf if mean is None else -mean.mean if row[0].higher_is_better else mean.mean

    rows = sorted(((group, strategy) for group in groups for strategy in group.strategies), key=worse)
    shown = [[column.cell(strategy) for column in columns(group)] for group, strategy in rows]
    return table_format.without_empty(Table("Settings, best first", columns(groups[0]), shown))


def _best_baseline(group: Group, columns: list[Column]) -> list[list[Cell]]:
    """Its row, where there is one; only its quality is known."""
    if not group.baselines:
        return []
    name, value = next(iter(group.baselines.items()))
    known = {"strategy": Cell(name, SIMPLEST), f"{group.split} {group.metric}": Cell(decimal(value, group.metric))}
    return [[known.get(column.header, Cell("" if column.is_text else NONE)) for column in columns]]


def _name(strategy: Strategy) -> Cell:
    chose = f"chose {', '.join(strategy.chose)}" if strategy.chose else ""
    return Cell(strategy.name, KNOWN_WRONG if strategy.known_wrong else chose)


def _peak_batch(strategy: Strategy) -> Cell:
    """The micro-batch that needed most memory."""
    batch = strategy.peak_batch or {}
    if "rows" not in batch or "width" not in batch:
        return Cell(NONE)
    tokens = f"{batch['tokens']:,} tokens" if "tokens" in batch else ""
    return Cell(f"{batch['rows']:,} × {batch['width']:,}", tokens)


SPEED = Column(
    "speed", "real tokens/s", lambda strategy: table_format.spread(strategy.real_tokens_per_s, table_format.whole)
)
