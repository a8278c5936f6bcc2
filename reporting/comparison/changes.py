"""Changes since a baseline: their size, whether they may be chance, and which conditions (`--fail-if`) fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from reporting.comparison import example_outcomes
from reporting.comparison.baseline import Sides, StrategyRuns
from reporting.comparison.example_outcomes import ExampleDifferences
from reporting.comparison.thresholds import SHORT, Condition
from reporting.runs.figures import RunFigures, amount, depends_on_machine
from reporting.statistics.intervals import Mean, Slot, differences, mean_interval
from runner.common.errors import HydromelError, did_you_mean


@dataclass(frozen=True)
class Change:
    """The change of one figure of a strategy, over `difference.n` pairs of runs of equal seed (turn, machine)."""

    heading: str  # of its group
    strategy: str
    figure: str
    before: float  # mean over the pairs, as is `now`
    now: float
    difference: Mean  # now minus before
    percent: Mean | None  # the difference in percent of `before`
    on_examples: Mean | None  # the same difference, with an interval by a bootstrap over test examples


@dataclass(frozen=True)
class ConditionResult:
    """The result of a condition for one strategy. `says` is a sentence on it."""

    condition: str
    failed: bool
    says: str


@dataclass(frozen=True)
class BaselineComparison:
    """All changes since a baseline: `changes` of what both sides have, `unmatched` sentences on the rest."""

    baseline: str
    level: float  # of each interval; corrected so that those of one figure hold at once for all strategies
    changes: list[Change]
    unmatched: list[str]
    judged: list[ConditionResult]


def compare(
    baseline: str, now: Sides, then: Sides, conditions: Sequence[Condition], confidence: float
) -> BaselineComparison:
    """Compare the runs now with those of the baseline, and judge the conditions.

    Raises HydromelError for a condition that cannot be judged: it must never count as passed.
    """
    both = [key for key in now if key in then and _same_options(now[key], then[key])]
    unmatched = _unmatched(now, then)
    if unmatched and conditions:
        more = f" (and {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        raise HydromelError(f"--fail-if cannot be judged: {unmatched[0]}{more}")
    # Bonferroni: each figure has one interval per compared strategy.
    level = 1 - (1 - confidence) / max(1, len(both))
    required = {condition.figure for condition in conditions}
    changes: list[Change] = []
    judged: list[ConditionResult] = []
    for key in both:
        by_figure, problems = _changes(now[key], then[key], required, level)
        unmatched += problems
        changes += by_figure.values()
        judged += [_judge(condition, by_figure[condition.figure]) for condition in conditions]
    return BaselineComparison(baseline, level, changes, unmatched, judged)


def _changes(
    now: StrategyRuns, then: StrategyRuns, required: set[str], level: float
) -> tuple[dict[str, Change], list[str]]:
    """Return the changes of one strategy by figure, and sentences on what could not be compared."""
    changes: dict[str, Change] = {}
    examples = _example_differences(now, then, level)
    problems = list(examples.problems)
    for figure in dict.fromkeys((now.headline, *SHORT.values(), *sorted(required))):
        change = _change(figure, now, then, examples, level)
        missing = change if isinstance(change, str) else _unpaired(figure, now, then)
        if missing and figure in required:
            raise HydromelError(f"--fail-if cannot be judged: {missing}")
        if missing and _values(now, figure):
            problems.append(missing)
        if isinstance(change, Change):
            changes[figure] = change
    return changes, problems


def _same_options(now: StrategyRuns, then: StrategyRuns) -> bool:
    return not now.options or not then.options or now.options == then.options


def _unmatched(now: Sides, then: Sides) -> list[str]:
    lines = []
    for sides, others, where in ((now, then, "the baseline"), (then, now, "these runs")):
        missing = [side for key, side in sides.items() if key not in others]
        lines += [f"{side.strategy} ({side.heading}) is not in {where}" for side in missing]
    for key, side in now.items():
        if key in then and not _same_options(side, then[key]):
            old = then[key].options
            names = sorted(name for name in {*side.options, *old} if side.options.get(name) != old.get(name))
            texts = [f"{name}={side.options.get(name, 'none')}, was {old.get(name, 'none')}" for name in names]
            lines.append(f"{side.strategy} ({side.heading}) has other options: {'; '.join(texts)}")
    return lines


def _change(
    figure: str, now: StrategyRuns, then: StrategyRuns, examples: ExampleDifferences, level: float
) -> Change | str:
    """Return the change, or the reason why it is missing."""
    new, old = _values(now, figure), _values(then, figure)
    pairs = sorted(new.keys() & old.keys())
    if not pairs:
        return _why_not(figure, now, then)
    before, difference = fmean(old[slot] for slot in pairs), mean_interval(differences(new, old), level)
    assert difference is not None
    return Change(
        heading=now.heading,
        strategy=now.strategy,
        figure=figure,
        before=before,
        now=fmean(new[slot] for slot in pairs),
        difference=difference,
        percent=_percent(difference, before),
        on_examples=examples.differences.get(now.strategy) if figure == now.headline else None,
    )


def _unpaired(figure: str, now: StrategyRuns, then: StrategyRuns) -> str:
    """Return a sentence on seeds without a pair of runs with this figure (a run may have diverged); else empty."""
    pairs = _values(now, figure).keys() & _values(then, figure).keys()
    seeds = {run.seed for side in (now, then) for run in side.runs} - {seed for seed, _, _ in pairs}
    if not seeds:
        return ""
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
    where = "these runs or the baseline" + (" (same turn and machine)" if depends_on_machine(figure) else "")
    return f"{figure} of {now.strategy} ({now.heading}), {named}, is missing in {where}"


def _values(side: StrategyRuns, figure: str) -> dict[Slot, float]:
    """Return a figure by what pairs the runs. A figure that no machine changes is that of each seed's first turn."""
    known = [run for run in side.runs if figure in run.figures]
    if depends_on_machine(figure):
        return {(run.seed, run.turn, run.machine): run.figures[figure] for run in known}
    return {(run.seed, 0, ()): run.figures[figure] for run in _first_turns(known)}


def _why_not(figure: str, now: StrategyRuns, then: StrategyRuns) -> str:
    who = f"{now.strategy} ({now.heading})"
    for side, where in ((now, "these runs"), (then, "the baseline")):
        if not _values(side, figure):
            names = [name for run in side.runs for name in run.figures]
            return f"{figure} of {who} is not recorded in {where}{did_you_mean(figure, names)}"
    machines = [{run.machine for run in side.runs} for side in (now, then)]
    if depends_on_machine(figure) and not machines[0] & machines[1]:
        new, old = (", ".join(" ".join(machine) for machine in sorted(side)) for side in machines)
        return f"{figure} of {who} was measured on other machines: {new}; the baseline: {old}"
    return f"{who} has no seed{' and turn' if depends_on_machine(figure) else ''} in common with the baseline"


def _percent(difference: Mean, before: float) -> Mean | None:
    if before <= 0:
        return None
    low, high = (None if bound is None else 100 * bound / before for bound in (difference.low, difference.high))
    return Mean(difference.n, 100 * difference.mean / before, low, high)


def _example_differences(now: StrategyRuns, then: StrategyRuns, level: float) -> ExampleDifferences:
    """Return the differences on examples; none if the runs of a side are missing, or recorded no outcomes."""
    new, old = (
        {run.seed: side.at_hand[run.run_id] for run in _first_turns(side.runs) if run.run_id in side.at_hand}
        for side in (now, then)
    )
    return example_outcomes.compare({now.strategy: new}, old, level)


def _first_turns(runs: list[RunFigures]) -> list[RunFigures]:
    return list({run.seed: run for run in sorted(runs, key=lambda run: -run.turn)}.values())


def _judge(condition: Condition, change: Change) -> ConditionResult:
    """Judge a condition: it fails if the change is beyond the bound and every known interval excludes zero change."""
    measured = change.percent if condition.percent else change.difference
    if measured is None:
        raise HydromelError(
            f"--fail-if '{condition.text}': no percentage of {change.before:g} ({change.strategy}); give the bound "
            "without %"
        )
    # Both intervals must exclude zero, as a verdict needs both: over seeds and, if recorded, on examples.
    intervals = [mean for mean in (change.difference, change.on_examples) if mean is not None and mean.low is not None]
    beyond = condition.beyond(measured.mean)
    failed = beyond and all(condition.certain(interval) for interval in intervals)
    if not beyond:
        how = "holds"
    elif not intervals:
        how = "failed by its bound alone (one run each, so no interval)"
    else:
        how = "failed" if failed else "not failed: beyond the bound, but it may be chance"
    figure, unit = ("", " %") if condition.percent else (change.figure, "")
    before, now = amount(change.before, change.figure), amount(change.now, change.figure)
    size = f"{amount(measured.mean, figure, '+')}{unit}"
    if measured.low is not None and measured.high is not None:
        size += f" ({amount(measured.low, figure, '+')} to {amount(measured.high, figure, '+')})"
    sentence = f"{condition.text}: {how}: {change.strategy} ({change.heading}) {before} before, {now} now: {size}"
    return ConditionResult(condition.text, failed, sentence)
