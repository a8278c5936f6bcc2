"""Sentences on a group: how its figures were made, the noise of the machine, and what to know before trusting them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from reporting.comparison.significance import REFERENCE, ComparisonRule, QualityVerdict, Verdicts
from reporting.runs import measures
from reporting.runs.run import MACHINE, Run
from reporting.runs.selection import SelectedRuns, all_turns
from reporting.statistics import intervals
from reporting.statistics.bootstrap import resamples_for
from reporting.statistics.intervals import Ratio, Slot
from runner.common.records import unbeaten_baselines

COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")  # ten of forty digits are enough to distinguish commits
FOREIGN_LOAD = 0.5  # load average above the run's own threads that shows other work on the machine


def notes(rule: ComparisonRule, verdicts: Verdicts, noise: Ratio | None, split: str, confidence: float) -> list[str]:
    """Return the notes of a group; none if no strategy is compared."""
    compared = verdicts.by_strategy.values()
    if not compared:
        return []
    percent = f"{100 * confidence:g} %"
    lines = []
    if rule.comparisons > 1:
        lines.append(
            f"{rule.comparisons} strategies are compared with {REFERENCE}: each interval against it is at "
            f"{100 * rule.level:.4g} %, so that all of them hold at once at {percent} (Bonferroni)."
        )
    if any(verdict.on_examples for verdict in compared):
        lines.append(
            f"Intervals over seeds: the same {split}, other runs; on examples: the same runs, other examples "
            f"({resamples_for(rule.level):,} paired resamples). A verdict needs both to agree; equivalent means "
            f"within {rule.margin_text} (--margin)."
        )
    elif any(verdict.difference for verdict in compared):
        lines.append(
            f"Intervals are over seeds only: there are no outcomes of single {split} examples (outcomes.npz); not "
            f"every metric has them. Equivalent means within {rule.margin_text} (--margin)."
        )
    if noise and noise.bounds:
        lines.append(
            "Noise of the machine: the speeds of two equal runs have a ratio of "
            f"{' to '.join(f'{end:.3f}' for end in noise.bounds)} "
            f"({percent}; {noise.n} repeated run{'s' if noise.n > 1 else ''})."
        )
    else:
        lines.append(
            "The noise of the machine was not measured: `turn=1,2` in a sweep measures it by running everything twice."
        )
    return lines


def speed_noise(selected: SelectedRuns, confidence: float) -> Ratio | None:
    """Return the noise of speed among runs on one machine that are equal except for their turn."""
    equal: dict[tuple[object, ...], list[float]] = {}
    for run in selected.runs:  # in the order of their turns
        if (speed := measures.speed(run)) is not None:
            equal.setdefault((run.strategy, run.seed, run.machine), []).append(speed)
    return intervals.noise(list(equal.values()), confidence)


def ratios_within_noise(verdicts: Mapping[str, QualityVerdict], noise: Ratio | None) -> list[str]:
    """Return a sentence for each strategy whose speed ratio to the reference could be noise alone."""
    if noise is None or noise.high is None:
        return []
    sentences = []
    ratios = {name: verdict.ratio for name, verdict in verdicts.items() if verdict.ratio}
    for name, ratio in ratios.items():
        # The log of one noisy ratio lies within log(noise.high); the mean of n of them spreads by 1 / sqrt(n) of that.
        half = math.log(noise.high) / math.sqrt(ratio.n)
        if abs(math.log(ratio.mean)) <= half:
            pairs = f" over {ratio.n} pairs" if ratio.n > 1 else ""
            sentences.append(
                f"{name} is {ratio.mean:.3f} times as fast as {REFERENCE}, which is within the noise of the machine: "
                f"equal runs give {math.exp(-half):.3f} to {math.exp(half):.3f}{pairs}."
            )
    return sentences


def scaling(selected: SelectedRuns, confidence: float) -> list[str]:
    """Return a sentence for each strategy that ran on several ranks, on how much faster than one rank that is.

    Ranks have the threads of the one rank each, on the same machine.
    """
    sentences = []
    for name, seeds in selected.by_strategy.items():
        first = all_turns(seeds)[0]
        ranks, base = first.ranks, selected.by_strategy.get(first.on_one_rank)
        if ranks == 1 or base is None:
            continue
        speeds, alone = (_speeds(all_turns(part)) for part in (seeds, base))
        if ratio := intervals.ratio_interval(speeds, alone, confidence):
            sentences.append(_scaling(name, ratio, ranks))
    return sentences


def _scaling(name: str, ratio: Ratio, ranks: int) -> str:
    """Return how much faster a strategy is on several ranks than on one, if that is certain."""
    if ratio.bounds is None:
        certainty = "one pair of runs, so it may be chance"
    else:
        low, high = ratio.bounds
        certainty = f"{low:.2f} to {high:.2f}"
    factor = f"{ratio.mean:.2f} times as fast as one rank of as many threads ({certainty})"
    if ratio.bounds is not None and ratio.bounds[0] <= 1 <= ratio.bounds[1]:
        return f"{name} is {factor}, which does not show that {ranks} ranks are faster or slower."
    return f"{name} is {factor}: {100 * ratio.mean / ranks:.0f} % of what {ranks} ranks could reach."


def _speeds(runs: list[Run]) -> dict[Slot, float]:
    return {run.slot: speed for run in runs if (speed := measures.speed(run)) is not None}


def caveats(selected: SelectedRuns) -> list[str]:
    """Return a sentence for each caveat that applies to these runs."""
    runs = selected.runs
    sentences = [
        _machines(runs),
        _order(selected),
        _busy(runs),
        _beside(runs),
        _code(runs),
        _left_out(selected.left_out),
    ]
    sentences += [_turns(selected), _seeds(selected), _no_quality(runs)]
    return [sentence for sentence in sentences if sentence]


def _machines(runs: list[Run]) -> str:
    differing = _differing(runs, MACHINE)
    return differing and (
        f"Times and memory are not comparable and are left out: these runs differ in {differing}. "
        "Ratios are taken between pairs of runs on one machine."
    )


def _order(selected: SelectedRuns) -> str:
    """Return a warning if one strategy, of several runs, ran wholly before another on the same machine."""
    if len(selected.machines) > 1:
        return ""
    created = {name: [run.created for run in all_turns(seeds)] for name, seeds in selected.by_strategy.items()}
    times = {name: own for name, own in created.items() if len(own) > 1}
    separated = [(a, b) for a in times for b in times if max(times[a]) < min(times[b])]
    if not separated:
        return ""
    first, second = separated[0]
    return (
        f"Strategies ran one after another (all runs of {first} before any of {second}), so a drift of the "
        "machine looks like a difference in speed; a single sweep over all strategies alternates between them."
    )


def _busy(runs: list[Run]) -> str:
    """Return a warning if more processes wanted to run than the run itself has threads in all its ranks."""
    loads = [(run.number("provenance.load_average"), run.number("provenance.threads"), run.ranks) for run in runs]
    busy = [load for load, threads, ranks in loads if load and threads and load > threads * ranks + FOREIGN_LOAD]
    if not busy:
        return ""
    return (
        f"The machine was busy with other work in {len(busy)} of {len(runs)} runs (load up to {max(busy):.1f}): "
        "their times are too long, and ratios of these times are unreliable."
    )


def _beside(runs: list[Run]) -> str:
    """Return a warning if runs shared their machine with other jobs of the command that started them."""
    beside = sum((run.number("provenance.jobs") or 1) > 1 for run in runs)
    if not beside:
        return ""
    return (
        f"{beside} of {len(runs)} runs ran beside other jobs of their sweep or search: their speeds, times and energy "
        "are not comparable (quality is). To time runs, give sweep.jobs=1."
    )


def _code(runs: list[Run]) -> str:
    differing = COMMIT.sub(r"\1", _differing(runs, ("git_commit", "versions.torch")))
    return f"These runs were made by different code: they differ in {differing}." if differing else ""


def _differing(runs: list[Run], keys: Iterable[str]) -> str:
    """Return `host (a, b); cpu (c, d)` for those keys of provenance in which the runs differ."""
    values = {key: sorted({run.text(f"provenance.{key}") for run in runs}) for key in keys}
    differing = {key: [text or "not recorded" for text in texts] for key, texts in values.items() if len(texts) > 1}
    return "; ".join(f"{key} ({', '.join(texts)})" for key, texts in differing.items())


def _left_out(count: int) -> str:
    runs = f"{count} older run{'s' if count > 1 else ''}"
    return f"{runs} of the same strategy, seed and turn left out: the newest counts." if count else ""


def _turns(selected: SelectedRuns) -> str:
    """Return a warning if turns of the same seed differ in quality, although they should be equal."""
    gaps = {}
    for name, seeds in selected.by_strategy.items():
        for seed, turns in seeds.items():
            qualities = measures.values(turns.values(), measures.quality)
            if qualities and max(qualities) > min(qualities):
                gaps[f"{name} seed {seed}"] = max(qualities) - min(qualities)
    worst = max(gaps, key=gaps.__getitem__, default="")
    return worst and (
        f"Equal runs differ in quality in {len(gaps)} case{'s' if len(gaps) > 1 else ''}, by up to "
        f"{gaps[worst]:.3g} ({worst}): the seed does not determine them fully. Quality is that of the first turn."
    )


def _seeds(selected: SelectedRuns) -> str:
    sets = {tuple(sorted(seeds)) for seeds in selected.by_strategy.values()}
    if len(sets) > 1:
        return (
            "The strategies do not have the same seeds: differences and speed-ups are taken over the seeds both have."
        )
    advice = "Run three seeds or more: seed=1,2,3."
    if all(len(seeds) == 1 for seeds in sets):
        return (
            "One seed only: no interval over seeds can be given, and a difference in quality may be chance. " + advice
        )
    if all(len(seeds) == 2 for seeds in sets):
        return (
            "Two seeds only: their intervals are more than three times as wide as those of three seeds would be "
            "(Student's t with 1 degree of freedom), so hardly any difference is significant. " + advice
        )
    return ""


def _no_quality(runs: list[Run]) -> str:
    without = ", ".join(f"{run.strategy} seed {run.seed}" for run in runs if measures.quality(run) is None)
    return without and f"Left out of quality, since {runs[0].metric} on {runs[0].split} is not finite: {without}."


def not_above_baselines(runs: list[Run]) -> str:
    """Return a warning that names the runs not better on test than a simple model; empty if there are none."""
    unbeaten: dict[str, list[str]] = {}
    for run in runs:
        for name in unbeaten_baselines(run.result):
            unbeaten.setdefault(name, []).append(f"{run.strategy} seed {run.seed}")
    models = "; ".join(
        f"{name} ({'all runs' if len(beaten) == len(runs) else ', '.join(beaten)})" for name, beaten in unbeaten.items()
    )
    return models and f"Not better on test {runs[0].metric} than the simplest models: {models}."
