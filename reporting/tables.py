"""The comparison as tables of text: made once for the console, Markdown and HTML. Figures are rounded here alone."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass

from reporting.statistics import Mean, Ratio, Spread
from reporting.summary import Group, Strategy
from runner.names import LOWER_IS_BETTER

NONE = "—"
KNOWN_WRONG, SIMPLEST = "known wrong", "simplest model"  # what rows say below their name


@dataclass(frozen=True)
class Cell:
    """A figure, and below it, smaller, how sure it is."""

    main: str
    detail: str = ""


@dataclass(frozen=True)
class Column:
    header: str
    unit: str
    cell: Callable[[Strategy], Cell]
    is_text: bool = False
    wraps: bool = False  # long text may go on in the next line


@dataclass(frozen=True)
class Table:
    columns: list[Column]
    rows: list[list[Cell]]


def tables(group: Group, confidence: float) -> list[Table]:
    """Quality, then cost; a row a strategy, in the group's order. Below quality the best of the simplest models."""
    quality, cost = (
        Table(columns, [[column.cell(strategy) for column in columns] for strategy in group.strategies])
        for columns in (_quality_columns(group, confidence), _cost_columns())
    )
    return [Table(quality.columns, quality.rows + _best_baseline(group, quality.columns)), cost]


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
    said.append(f"Ran on {'; '.join(group.machines)}.")
    return said + group.notes


def heading(group: Group) -> str:
    """`tag · wnut17 · word · rnn (train.epochs=3)`."""
    return f"{group.title} ({of_group(group)})" if group.settings else group.title


def of_group(group: Group) -> str:
    """`train.epochs=3, task.head=crf`: what sets it apart from others of its title."""
    return ", ".join(f"{name}={value}" for name, value in group.settings.items())


def markdown(table: Table) -> str:
    """A table of GitHub-flavoured Markdown; whatever a name holds, it stays text."""
    heads = [escape(f"{column.header} ({column.unit})" if column.unit else column.header) for column in table.columns]
    lines = [heads, ["---" if column.is_text else "---:" for column in table.columns]]
    lines += [
        [escape(f"{cell.main} ({cell.detail})" if cell.detail else cell.main) for cell in row] for row in table.rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def decimal(value: float, metric: str) -> str:
    """Percentages to 0.01; losses and perplexities to 0.001."""
    return f"{value:,.{3 if metric in LOWER_IS_BETTER else 2}f}"


def _quality_columns(group: Group, confidence: float) -> list[Column]:
    def mean(value: Mean | None, sign: str) -> Cell:
        if value is None:
            return Cell(NONE)
        main = ("+" if sign and value.mean >= 0 else "") + decimal(value.mean, group.metric)
        if value.low is None or value.high is None:
            return Cell(main, "one seed")
        return Cell(main, f"± {decimal((value.high - value.low) / 2, group.metric)}")

    interval = f"± {100 * confidence:g} %"
    return [
        Column("strategy", "", _name, is_text=True),
        Column("seeds", "", lambda strategy: Cell(str(len(strategy.run_ids)))),
        Column(f"{group.split} {group.metric}", interval, lambda strategy: mean(strategy.quality, "")),
        Column(
            "minus padmask",
            interval,
            lambda strategy: mean(v.difference if (v := strategy.against_padmask) else None, "+"),
        ),
        Column("to target", "s", _to_target),
        Column("kernel", "", lambda strategy: Cell("; ".join(strategy.kernels) or NONE), is_text=True, wraps=True),
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
    return Table(columns(groups[0]), [[column.cell(strategy) for column in columns(group)] for group, strategy in rows])


def _best_baseline(group: Group, columns: list[Column]) -> list[list[Cell]]:
    """Its row, where there is one; only its quality is known."""
    if not group.baselines:
        return []
    name, value = next(iter(group.baselines.items()))
    known = {"strategy": Cell(name, SIMPLEST), f"{group.split} {group.metric}": Cell(decimal(value, group.metric))}
    return [[known.get(column.header, Cell("" if column.is_text else NONE)) for column in columns]]


def _cost_columns() -> list[Column]:
    return [
        Column("strategy", "", _name, is_text=True),
        SPEED,
        Column("vs size1", "times", lambda strategy: _ratio(strategy.speedup_over_size1)),
        Column("vs padmask", "times", lambda strategy: _ratio(v.ratio if (v := strategy.against_padmask) else None)),
        Column("padding", "% memory", lambda strategy: Cell(_percent(strategy.padding_share))),
        Column("peak", "MiB", lambda strategy: _spread(strategy.peak_memory_bytes, lambda v: f"{v / 2**20:,.0f}")),
    ]


def _name(strategy: Strategy) -> Cell:
    return Cell(strategy.name, KNOWN_WRONG if strategy.known_wrong else "")


def _to_target(strategy: Strategy) -> Cell:
    when = strategy.seconds_to_target
    some = f"{when.reached} of {when.n} runs" if when.reached < when.n else ""
    if when.median is None or when.low is None or when.high is None:
        return Cell(NONE, some)
    return Cell(f"{when.median:,.1f}", some or _range(when.n, when.low, when.high, lambda v: f"{v:,.1f}"))


def _spread(value: Spread | None, text: Callable[[float], str]) -> Cell:
    return Cell(NONE) if value is None else Cell(text(value.median), _range(value.n, value.low, value.high, text))


def _ratio(value: Ratio | None) -> Cell:
    if value is None or value.low is None or value.high is None:
        return Cell(_times(value.mean) if value else NONE)
    return Cell(_times(value.mean), _range(value.n, value.low, value.high, _times))


def _range(n: int, low: float, high: float, text: Callable[[float], str]) -> str:
    return f"{text(low)}–{text(high)}" if n > 1 and low < high else ""


SPEED = Column("speed", "real tokens/s", lambda strategy: _spread(strategy.real_tokens_per_s, lambda v: f"{v:,.0f}"))


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.1f}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def escape(text: str) -> str:
    """`text` as one line of Markdown that shows it as it is."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("`", "\\`")
