"""The comparison itself: runs in groups of equal configuration, and a summary of every strategy over its seeds.

All views (console, Markdown, HTML, plots) show these objects, and report.json holds them, so they cannot disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from reporting.comparison.equal_updates import StrategyUpdates, is_known_wrong, sentences
from reporting.comparison.notes import caveats, not_above_baselines, notes, ratios_within_noise, scaling, speed_noise
from reporting.comparison.predicted import PredictedPlan, Prediction, predictions
from reporting.comparison.significance import ComparisonRule, QualityVerdict, Verdicts, rule_for, verdicts
from reporting.runs import measures, settings
from reporting.runs.measures import LengthRate, RunFigures, run_figures
from reporting.runs.run import Evaluation, Run
from reporting.runs.selection import SelectedRuns, all_turns, first_turns, select_runs
from reporting.statistics import intervals
from reporting.statistics.intervals import Mean, Ratio, Spread, TimeToTarget
from runner.common.records import PADDING_CAUSES, PeakBatchRecord, finite
from runner.terminal.progress import track

SLOWEST = "size1"  # the simplest strategy, which speed-ups are relative to


@dataclass(frozen=True)
class CompareOptions:
    """The user's options.

    A difference in quality below `margin` does not matter. It is in percentage points, or for metrics of another unit
    in percent of the reference's quality.
    """

    target: float | None
    confidence: float
    margin: float
    predicted: PredictedPlan | None = None  # from hydromel-plan --json


@dataclass(frozen=True)
class Target:
    """A quality on valid: `given` by the user, or the lowest of the runs' best qualities, which every run reaches."""

    quality: float | None
    given: bool


@dataclass(frozen=True)
class StrategySummary:
    """The summary of one batching strategy of a group over its seeds. What was not measured is None or missing.

    Times and memory on several machines are not pooled: then they are None or empty in the whole group.
    """

    name: str
    known_wrong: bool
    options: dict[str, str]  # options of its batching, by dotted name
    chose: list[str]  # for `auto`: the strategies that its runs used
    run_ids: dict[int, str]  # ids of first turns, by seed (as is every dict[int, ...] here)
    turns: int  # number of turns, of the seed that has most
    quality: Mean | None  # quality on test
    quality_by_seed: dict[int, float]
    against_padmask: QualityVerdict | None
    seconds_to_target: TimeToTarget  # training time until an evaluation on valid reached the group's target
    tokens_to_target: TimeToTarget  # real tokens trained on until then
    real_tokens_per_s: Spread | None
    speedup_over_size1: Ratio | None  # ratio of real tokens/s, paired by seed, turn and machine
    padding_share: float | None  # padded / (real + padded), mean over runs, 0..1
    padding_by_cause: dict[str, float]  # share of all positions in memory, mean over runs, 0..1
    character_padding: float | None  # share of the characters that character models read, mean over runs, 0..1
    pieces_per_s: Spread | None  # of pieces of words, if the model reads these
    piece_padding: float | None  # share of the pieces that the model computes, mean over runs, 0..1
    seconds_by_phase: dict[str, float]  # seconds, mean over runs
    by_length: list[LengthRate]
    peak_memory_bytes: Spread | None
    peak_batch: PeakBatchRecord | None  # rows, width, tokens of the micro-batch that needed most memory
    halved: list[str]  # sentences on runs that ran out of memory and continued with smaller micro-batches
    matrix_share: Spread | None  # share of the device's measured rate of matrix products, 0..1
    joules_per_thousand_tokens: Spread | None
    memory_sources: list[str]
    kernels: list[str]
    runs: list[RunFigures]  # all seeds and turns, with every figure
    updates: dict[int, tuple[int, str]]  # seed -> count and digest of updates
    evaluations: dict[int, tuple[Evaluation, ...]]  # seed -> evaluations on valid


@dataclass(frozen=True)
class RunGroup:
    """The comparison of runs whose configurations differ only in batching, seed and turn."""

    title: str
    metric: str
    unit: str  # unit of the metric: %, nats, ...; empty for a plain number
    higher_is_better: bool
    split: str  # split on which quality is measured: test, or valid if the data has no test
    comparison_hash: str
    data_fingerprint: str
    settings: dict[str, str]  # settings that distinguish this group from others with its title
    target: Target
    margin: float  # margin of equivalence in units of the metric
    comparisons: int  # number of strategies compared with the reference, for which intervals are corrected
    noise: Ratio | None  # ratio of speeds of equal runs in different turns
    strategies: list[StrategySummary]
    advice: list[Prediction]  # predictions for strategies, with measurements
    machines: list[str]  # host, CPU, threads and device of the runs
    majority: dict[str, float]  # metrics on test of always predicting the most frequent label of the training set
    baselines: dict[str, float]  # quality on test of the simplest models (majority is one), best first
    sentences: list[str]  # sentences on equal updates, and on speed ratios within noise
    notes: list[str]  # sentences on how the figures were made
    caveats: list[str]
    unbeaten: str  # warning about simple models that the runs do not beat; empty if they beat all


def groups(runs: list[Run], compare_options: CompareOptions) -> list[RunGroup]:
    """Group runs by configuration, data and metric, and compare them; groups are never pooled. Sorted by title.

    Batching may differ inside a group, except for its batch size where a strategy has several.
    """
    by_key: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        key = (run.title, run.comparison_hash, run.text("provenance.data_fingerprint"), run.metric, run.split)
        by_key.setdefault(key, []).append(run)
    # Batch size splits a group after its other settings are known: runs of one configuration share those settings.
    differing = settings.distinguishing_settings({key: same_key[0] for key, same_key in by_key.items()})
    parts = [(key, same_size) for key in sorted(by_key) for same_size in settings.split_by_batch_size(by_key[key])]
    sizes = settings.differing_batch_sizes([(key[0], same_size) for key, same_size in parts])
    return [
        _group(same_size, size | differing[key], compare_options)
        for (key, same_size), size in zip(track(parts, "comparing", len(parts)), sizes, strict=True)
    ]


def _group(runs: list[Run], own_settings: dict[str, str], compare_options: CompareOptions) -> RunGroup:
    selected, sample = select_runs(settings.name_variants(runs)), runs[0]
    confidence, given, plan = compare_options.confidence, compare_options.target, compare_options.predicted
    higher = sample.result["quality"]["higher_is_better"]
    # Only first turns: a repeated run trains the same way, so it adds nothing to quality or to the target.
    firsts = [run for seeds in selected.by_strategy.values() for run in first_turns(seeds).values()]
    target = Target(_common_target(firsts, higher) if given is None else given, given is not None)
    rule = rule_for(selected, confidence, compare_options.margin, sample.unit, higher)
    against, noise = verdicts(selected, rule), speed_noise(selected, confidence)
    majority = {name: sample.number(f"majority.{name}") for name in (sample.metric, "accuracy")}
    planned = plan.candidates if plan and plan.title == sample.title else []
    strategies = [_strategy(name, selected, target, rule, against, confidence) for name in selected.by_strategy]
    with_dropout = {run.strategy for run in firsts if run.result["updates"].get("dropout")}
    updates = {
        own.name: StrategyUpdates(own.updates, own.quality_by_seed, own.name in with_dropout) for own in strategies
    }
    return RunGroup(
        title=sample.title,
        metric=sample.metric,
        unit=sample.unit,
        higher_is_better=higher,
        split=sample.split,
        comparison_hash=sample.comparison_hash,
        data_fingerprint=sample.text("provenance.data_fingerprint"),
        settings=own_settings,
        target=target,
        margin=rule.margin,
        comparisons=rule.comparisons,
        noise=noise,
        strategies=strategies,
        advice=predictions(selected.runs, planned, measured=len(selected.machines) == 1),
        machines=sorted({_machine(run) for run in selected.runs}),
        majority={name: value for name, value in majority.items() if value is not None},
        baselines=_baselines(firsts, higher),
        sentences=[
            *sentences(updates, sample.split),
            *scaling(selected, confidence),
            *ratios_within_noise(against.by_strategy, noise),
        ],
        notes=notes(rule, against, noise, sample.split, confidence),
        caveats=caveats(selected) + against.problems,
        unbeaten=not_above_baselines(selected.runs),
    )


def _strategy(
    name: str, selected: SelectedRuns, target: Target, rule: ComparisonRule, against: Verdicts, confidence: float
) -> StrategySummary:
    seeds = selected.by_strategy[name]
    firsts, runs = first_turns(seeds), all_turns(seeds)
    timed = runs if len(selected.machines) == 1 else []  # times on several machines are not pooled
    quality = measures.by_seed(firsts, measures.quality)
    # evaluations of old runs do not record how many tokens had been read
    counted = [run for run in firsts.values() if all(evaluation.tokens is not None for evaluation in run.evaluations)]
    size1 = all_turns(selected.by_strategy.get(SLOWEST, {}))
    return StrategySummary(
        name=name,
        known_wrong=is_known_wrong(name),
        options=dict(settings.options(runs[0])),
        chose=measures.texts(runs, "advice.chosen"),
        run_ids={seed: run.result["run_id"] for seed, run in firsts.items()},
        turns=max(len(turns) for turns in seeds.values()),
        quality=intervals.mean_interval(list(quality.values()), confidence),
        quality_by_seed=quality,
        against_padmask=against.by_strategy.get(name),
        seconds_to_target=intervals.reached([_time_to_reach(run, target, rule, "seconds") for run in timed]),
        tokens_to_target=intervals.reached([_time_to_reach(run, target, rule, "tokens") for run in counted]),
        real_tokens_per_s=_spread(timed, measures.speed),
        speedup_over_size1=intervals.ratio_interval(
            measures.by_slot(runs, measures.speed), measures.by_slot(size1, measures.speed), rule.level
        ),
        padding_share=measures.mean(runs, measures.padding_share("tokens.padded")),
        padding_by_cause=measures.means(runs, {c: measures.cause_share(c) for c in PADDING_CAUSES}),
        character_padding=measures.mean(runs, measures.character_padding),
        pieces_per_s=_spread(timed, measures.figure("speed.pieces_per_s")),
        piece_padding=measures.mean(runs, measures.piece_padding),
        seconds_by_phase=measures.means(timed, {p: measures.figure(f"seconds.{p}") for p in measures.PHASES}),
        by_length=measures.length_rates(timed),
        peak_memory_bytes=_spread(timed, measures.figure("memory.peak_bytes")),
        peak_batch=measures.peak_batch(timed),
        halved=measures.halvings(runs),
        matrix_share=_spread(timed, measures.figure("arithmetic.share")),
        joules_per_thousand_tokens=_spread(timed, measures.figure("energy.joules_per_thousand_tokens")),
        memory_sources=measures.texts(runs, "memory.source"),
        kernels=measures.texts(runs, "kernel"),
        runs=[run_figures(run) for run in runs],
        updates={seed: run.updates for seed, run in firsts.items()},
        evaluations={seed: run.evaluations for seed, run in firsts.items()},
    )


def _common_target(runs: list[Run], higher: bool) -> float | None:
    """Return the worst of the runs' best qualities; None if no run has one."""
    best, worst = (max, min) if higher else (min, max)
    defined = [[item.quality for item in run.evaluations if not math.isnan(item.quality)] for run in runs]
    return worst((best(qualities) for qualities in defined if qualities), default=None)


def _time_to_reach(run: Run, target: Target, rule: ComparisonRule, unit: Literal["seconds", "tokens"]) -> float | None:
    """Return seconds of training, or real tokens, at the first evaluation that reached the target; None if none did.

    There is no interpolation between evaluations.
    """
    if (quality := target.quality) is None:
        return None
    for evaluation in run.evaluations:
        if evaluation.quality >= quality if rule.higher else evaluation.quality <= quality:
            return evaluation.seconds if unit == "seconds" else evaluation.tokens
    return None


def _spread(runs: list[Run], measure: measures.Measure) -> Spread | None:
    return intervals.spread(measures.values(runs, measure))


def _machine(run: Run) -> str:
    host, device, cpu, threads = (text or "?" for text in run.machine)
    return f"{host}: {cpu}, {threads} thread{'' if threads == '1' else 's'}, device {device}"


def _baselines(runs: list[Run], higher: bool) -> dict[str, float]:
    """Return the quality of the simplest models that any of the runs has; it depends on neither strategy nor seed."""
    qualities: dict[str, float] = {}
    for run in runs:
        own = {"majority": run.number(f"majority.{run.metric}")}
        own |= {name: finite(figures.get(run.metric)) for name, figures in run.result.get("baselines", {}).items()}
        qualities |= {name: value for name, value in own.items() if value is not None}
    return dict(sorted(qualities.items(), key=lambda item: -item[1] if higher else item[1]))
