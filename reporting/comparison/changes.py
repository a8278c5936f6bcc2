"""Runs now against a baseline: what changed, whether by chance, and which conditions (`--fail-if`) fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from reporting.comparison import example_outcomes
from reporting.comparison.baseline import Side, Sides
from reporting.comparison.example_outcomes import OnExamples
from reporting.comparison.thresholds import SHORT, Condition
from reporting.runs.figures import RunFigures, amount, of_machine
from reporting.statistics import intervals as statistics
from reporting.statistics.intervals import Mean, Slot
from runner.common.errors import HydromelError, did_you_mean


@dataclass(frozen=True)
class Change:
    """A figure of one strategy: now minus then, over `difference.n` pairs of runs of equal seed (turn, machine)."""

    heading: str  # of its group
    strategy: str
    figure: str
    before: float  # means over the pairs
    now: float
    difference: Mean
    percent: Mean | None  # the same, of `before`
    on_examples: Mean | None  # the same difference; its interval is by a bootstrap of test examples


@dataclass(frozen=True)
class Judged:
    """A condition on one strategy's change. `says` is a sentence."""

    condition: str
    failed: bool
    says: str


@dataclass(frozen=True)
class History:
    """Everything that is in both is in `changes`; `unmatched` says what is not."""

    baseline: str
    level: float  # confidence of each interval, so that those of one figure hold at once for all strategies
    changes: list[Change]
    unmatched: list[str]
    judged: list[Judged]


def compared(baseline: str, now: Sides, then: Sides, conditions: Sequence[Condition], confidence: float) -> History:
    """Raises HydromelError where a condition cannot be judged: that is never taken for a pass."""
    both = [key for key in now if key in then and _same_options(now[key], then[key])]
    unmatched = _unmatched(now, then)
    if unmatched and conditions:
        more = f" (and {len(unmatched) - 1} more)" if len(unmatched) > 1 else ""
        raise HydromelError(f"--fail-if cannot be judged: {unmatched[0]}{more}")
    level = 1 - (1 - confidence) / max(1, len(both))
    asked = {condition.figure for condition in conditions}
    changes: list[Change] = []
    judged: list[Judged] = []
    for key in both:
        made: dict[str, Change] = {}
        examples = _on_examples(now[key], then[key], level)
        unmatched += examples.problems
        for figure in dict.fromkeys((now[key].headline, *SHORT.values(), *sorted(asked))):
            change = _change(figure, now[key], then[key], examples, level)
            missing = change if isinstance(change, str) else _unpaired(figure, now[key], then[key])
            if missing and figure in asked:
                raise HydromelError(f"--fail-if cannot be judged: {missing}")
            if missing and _values(now[key], figure):
                unmatched.append(missing)
            if isinstance(change, Change):
                made[figure] = change
        changes += made.values()
        judged += [_judge(condition, made[condition.figure]) for condition in conditions]
    return History(baseline, level, changes, unmatched, judged)


def _same_options(now: Side, then: Side) -> bool:
    return not now.options or not then.options or now.options == then.options


def _unmatched(now: Sides, then: Sides) -> list[str]:
    said = []
    for there, other, where in ((now, then, "the baseline"), (then, now, "these runs")):
        said += [
            f"{side.strategy} ({side.heading}) is not in {where}" for key, side in there.items() if key not in other
        ]
    for key, side in now.items():
        if key in then and not _same_options(side, then[key]):
            keys = sorted(
                name
                for name in {*side.options, *then[key].options}
                if side.options.get(name) != then[key].options.get(name)
            )
            texts = [
                f"{name}={side.options.get(name, 'none')}, was {then[key].options.get(name, 'none')}" for name in keys
            ]
            said.append(f"{side.strategy} ({side.heading}) has other options: {'; '.join(texts)}")
    return said


def _change(figure: str, now: Side, then: Side, examples: OnExamples, level: float) -> Change | str:
    """The change, or a line that says why there is none."""
    new, old = _values(now, figure), _values(then, figure)
    pairs = sorted(new.keys() & old.keys())
    if not pairs:
        return _why_not(figure, now, then)
    before, gaps = fmean(old[slot] for slot in pairs), statistics.differences(new, old)
    difference = statistics.mean_interval(gaps, level)
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


def _unpaired(figure: str, now: Side, then: Side) -> str:
    """Says which seeds have no pair of runs with this figure; empty where all have. A run that diverged has none."""
    pairs = _values(now, figure).keys() & _values(then, figure).keys()
    seeds = {run.seed for side in (now, then) for run in side.runs} - {seed for seed, _, _ in pairs}
    if not seeds:
        return ""
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
    where = "in these runs and the baseline alike" + (" (same turn and machine)" if of_machine(figure) else "")
    return f"{figure} of {now.strategy} ({now.heading}), {named}, is not on record {where}"


def _values(side: Side, figure: str) -> dict[Slot, float]:
    """By what pairs of runs have in common: of figures that no machine changes, each seed's first turn."""
    known = [run for run in side.runs if figure in run.figures]
    if of_machine(figure):
        return {(run.seed, run.turn, run.machine): run.figures[figure] for run in known}
    return {(run.seed, 0, ()): run.figures[figure] for run in _first_turns(replace(side, runs=known))}


def _why_not(figure: str, now: Side, then: Side) -> str:
    who = f"{now.strategy} ({now.heading})"
    for side, where in ((now, "these runs"), (then, "the baseline")):
        if not _values(side, figure):
            names = [name for run in side.runs for name in run.figures]
            return f"{figure} of {who} is not on record in {where}{did_you_mean(figure, names)}"
    machines = [{run.machine for run in side.runs} for side in (now, then)]
    if of_machine(figure) and not machines[0] & machines[1]:
        named = [", ".join(" ".join(each) for each in sorted(some)) for some in machines]
        return f"{figure} of {who} is of other machines: {named[0]}; the baseline: {named[1]}"
    return f"{who} has no seed{' and turn' if of_machine(figure) else ''} in common with the baseline"


def _percent(difference: Mean, before: float) -> Mean | None:
    if before <= 0:
        return None
    mean, low, high = (
        None if each is None else 100 * each / before for each in (difference.mean, difference.low, difference.high)
    )
    return Mean(difference.n, mean or 0.0, low, high)


def _on_examples(now: Side, then: Side, level: float) -> OnExamples:
    """Nothing where either side's runs are not at hand, or recorded no outcomes."""
    new, old = (
        {each.seed: side.at_hand[each.run_id] for each in _first_turns(side) if each.run_id in side.at_hand}
        for side in (now, then)
    )
    return example_outcomes.compared({now.strategy: new}, old, level)


def _first_turns(side: Side) -> list[RunFigures]:
    by_seed = {run.seed: run for run in sorted(side.runs, key=lambda run: -run.turn)}
    return list(by_seed.values())


def _judge(condition: Condition, change: Change) -> Judged:
    """Failed where the change is beyond the bound and every interval that there is excludes no change."""
    made = change.percent if condition.percent else change.difference
    if made is None:
        raise HydromelError(f"--fail-if '{condition.text}': no percentage of {change.before:g} ({change.strategy})")
    intervals = [each for each in (change.difference, change.on_examples) if each is not None and each.low is not None]
    beyond = condition.beyond(made.mean)
    failed = beyond and all(condition.certain(each) for each in intervals)
    if not beyond:
        how = "holds"
    elif not intervals:
        how = "failed by its bound alone (one run each, so no interval)"
    else:
        how = "failed" if failed else "not failed: beyond the bound, but it may be chance"
    figure = "" if condition.percent else change.figure
    before, now = amount(change.before, change.figure), amount(change.now, change.figure)
    return Judged(
        condition.text,
        failed,
        f"{condition.text}: {how}: {change.strategy} ({change.heading}) {before} before, {now} now: "
        f"{_signed(made, figure, ' %' if condition.percent else '')}",
    )


def _signed(value: Mean, figure: str, unit: str) -> str:
    mean, low, high = (
        None if each is None else amount(each, figure, "+") for each in (value.mean, value.low, value.high)
    )
    return f"{mean}{unit}" if low is None or high is None else f"{mean}{unit} ({low} to {high})"
