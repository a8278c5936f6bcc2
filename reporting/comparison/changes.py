"""Changes since a baseline: their size, whether they may be chance, and which conditions (`--fail-if`) fail.

A condition bounds the change of a figure, such as `test/f1 < -1.0`. Grammar: FIGURE (`<` | `>`) BOUND [`%`]. FIGURE is
a section and a key of result.json (`test/f1`, `speed/real_tokens_per_s`, `memory/peak_bytes`, `seconds/total`), or
`speed` or `memory` for short. BOUND is a change, now minus before, in units of the figure, or with % in percent of
before. `<` takes a bound of 0 or below, `>` one of 0 or above.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from reporting.comparison import example_outcomes
from reporting.comparison.baseline import Sides, StrategyRuns
from reporting.runs.measures import SECTIONS, RunFigures, amount, depends_on_machine
from reporting.statistics.intervals import Mean, Slot, differences, mean_interval
from runner.common.errors import HydromelError, did_you_mean

SHORT = {"speed": "speed/real_tokens_per_s", "memory": "memory/peak_bytes"}
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
GRAMMAR = re.compile(rf"\s*(?P<figure>[^\s<>]+)\s*(?P<sign>[<>])\s*(?P<bound>{NUMBER})\s*(?P<percent>%?)\s*", re.ASCII)


@dataclass(frozen=True)
class Condition:
    """A condition that fails if `figure` changed beyond `bound` (below or above it), and not by chance."""

    text: str
    figure: str
    below: bool
    bound: float
    percent: bool

    def certain(self, interval: Mean) -> bool:
        """Return True if the interval is unknown, or lies wholly on this condition's side of 0."""
        return all(end < 0 if self.below else end > 0 for end in interval.bounds or ())


@dataclass(frozen=True)
class Change:
    """The change of one figure of a strategy, over `difference.n` pairs of runs of equal seed (turn, machine)."""

    heading: str  # heading of its group
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
    level: float  # level of each interval; corrected so that those of one figure hold at once for all strategies
    changes: list[Change]
    unmatched: list[str]
    judged: list[ConditionResult]


def parse(text: str) -> Condition:
    """Parse a condition. Raises HydromelError for text that does not fit the grammar, or an unknown section."""
    match = GRAMMAR.fullmatch(text)
    if match is None:
        raise HydromelError(
            f"--fail-if '{text}' is not FIGURE < BOUND or FIGURE > BOUND, such as 'test/f1 < -1.0' or 'speed < -5%' "
            "(docs/comparison.md)"
        )
    name, bound, below = match["figure"], float(match["bound"]), match["sign"] == "<"
    figure = SHORT.get(name, name)
    section, slash, key = figure.partition("/")
    if section not in SECTIONS or not key:
        choices = [*SHORT, *(f"{known}/..." for known in SECTIONS)]
        close = did_you_mean(section, [*SHORT, *SECTIONS]) if not slash or section not in SECTIONS else "."
        raise HydromelError(f"figure '{name}' is unknown (--fail-if '{text}'){close} Allowed: {', '.join(choices)}")
    if not math.isfinite(bound):
        raise HydromelError(f"--fail-if '{text}': no change is beyond {match['bound']}; give a finite bound")
    if (bound > 0) if below else (bound < 0):
        raise HydromelError(
            f"--fail-if '{text}': the bound applies to the change, so with {match['sign']} it must be "
            f"{'0 or below' if below else '0 or above'}"
        )
    return Condition(" ".join(text.split()), figure, below, bound, bool(match["percent"]))


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
    # The differences on examples: none if the runs of a side are missing, or recorded no outcomes.
    new, old = (
        {run.seed: side.at_hand[run.run_id] for run in _first_turns(side.runs) if run.run_id in side.at_hand}
        for side in (now, then)
    )
    examples = example_outcomes.compare({now.strategy: new}, old, level)
    problems = list(examples.problems)
    for figure in dict.fromkeys((now.headline, *SHORT.values(), *sorted(required))):
        on_examples = examples.differences.get(now.strategy) if figure == now.headline else None
        change = _change(figure, now, then, on_examples, level)
        missing = _unpaired(figure, now, then) if change else _why_not(figure, now, then)
        if missing and figure in required:
            raise HydromelError(f"--fail-if cannot be judged: {missing}")
        if missing and _values(now, figure):
            problems.append(missing)
        if change:
            changes[figure] = change
    return changes, problems


def _same_options(now: StrategyRuns, then: StrategyRuns) -> bool:
    return not now.options or not then.options or now.options == then.options


def _unmatched(now: Sides, then: Sides) -> list[str]:
    lines = []
    for sides, others, where in ((now, then, "the baseline"), (then, now, "these runs")):
        missing = [side for key, side in sides.items() if key not in others]
        lines += [f"{side.name} is not in {where}" for side in missing]
    for key, side in now.items():
        if key in then and not _same_options(side, then[key]):
            old = then[key].options
            names = sorted(name for name in {*side.options, *old} if side.options.get(name) != old.get(name))
            texts = [f"{name}={side.options.get(name, 'none')}, was {old.get(name, 'none')}" for name in names]
            lines.append(f"{side.name} has other options: {'; '.join(texts)}")
    return lines


def _change(
    figure: str, now: StrategyRuns, then: StrategyRuns, on_examples: Mean | None, level: float
) -> Change | None:
    """Return the change of a figure; None without pairs of runs."""
    new, old = _values(now, figure), _values(then, figure)
    pairs = sorted(new.keys() & old.keys())
    if (difference := mean_interval(differences(new, old), level)) is None:
        return None
    before, after = fmean(old[slot] for slot in pairs), fmean(new[slot] for slot in pairs)
    percent = None
    if before > 0:
        low, high = (100 * end / before for end in difference.bounds) if difference.bounds else (None, None)
        percent = Mean(difference.n, 100 * difference.mean / before, low, high)
    return Change(now.heading, now.strategy, figure, before, after, difference, percent, on_examples)


def _unpaired(figure: str, now: StrategyRuns, then: StrategyRuns) -> str:
    """Return a sentence on seeds without a pair of runs with this figure (a run may have diverged); else empty."""
    pairs = _values(now, figure).keys() & _values(then, figure).keys()
    seeds = {run.seed for side in (now, then) for run in side.runs} - {seed for seed, _, _ in pairs}
    if not seeds:
        return ""
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, sorted(seeds)))}"
    where = "these runs or the baseline" + (" (same turn and machine)" if depends_on_machine(figure) else "")
    return f"{figure} of {now.name}, {named}, is missing in {where}"


def _values(side: StrategyRuns, figure: str) -> dict[Slot, float]:
    """Return a figure by seed, turn and machine. If it does not depend on the machine, only first turns are used."""
    known = [run for run in side.runs if figure in run.figures]
    if depends_on_machine(figure):
        return {run.slot: run.figures[figure] for run in known}
    return {(run.seed, 0, ()): run.figures[figure] for run in _first_turns(known)}


def _why_not(figure: str, now: StrategyRuns, then: StrategyRuns) -> str:
    for side, where in ((now, "these runs"), (then, "the baseline")):
        if not _values(side, figure):
            names = [name for run in side.runs for name in run.figures]
            return f"{figure} of {now.name} is not recorded in {where}{did_you_mean(figure, names)}"
    machines = [{run.machine for run in side.runs} for side in (now, then)]
    if depends_on_machine(figure) and not machines[0] & machines[1]:
        new, old = (", ".join(" ".join(machine) for machine in sorted(side)) for side in machines)
        return f"{figure} of {now.name} was measured on other machines: {new}; the baseline: {old}"
    return f"{now.name} has no seed{' and turn' if depends_on_machine(figure) else ''} in common with the baseline"


def _first_turns(runs: list[RunFigures]) -> list[RunFigures]:
    return list({run.seed: run for run in sorted(runs, key=lambda run: -run.turn)}.values())


def _judge(condition: Condition, change: Change) -> ConditionResult:
    """Judge a condition: it fails if the change is beyond the bound and every known interval excludes zero change."""
    measured = change.percent if condition.percent else change.difference
    if measured is None:
        raise HydromelError(
            f"--fail-if '{condition.text}': the earlier figure of {change.strategy} is {change.before:g}, so a "
            "change in percent is undefined; give the bound without %"
        )
    # Both intervals must exclude zero, as a verdict needs both: over seeds and, if recorded, on examples.
    intervals = [mean for mean in (change.difference, change.on_examples) if mean and mean.bounds]
    beyond = measured.mean < condition.bound if condition.below else measured.mean > condition.bound
    failed = beyond and all(map(condition.certain, intervals))
    if not beyond:
        how = "holds"
    elif not intervals:
        how = "failed by its bound alone (one run each, so no interval)"
    else:
        how = "failed" if failed else "not failed: beyond the bound, but it may be chance"
    figure, unit = ("", " %") if condition.percent else (change.figure, "")
    before, now = amount(change.before, change.figure), amount(change.now, change.figure)
    size = f"{amount(measured.mean, figure, '+')}{unit}"
    if bounds := measured.bounds:
        size += f" ({' to '.join(amount(bound, figure, '+') for bound in bounds)})"
    sentence = f"{condition.text}: {how}: {change.strategy} ({change.heading}) {before} before, {now} now: {size}"
    return ConditionResult(condition.text, failed, sentence)
