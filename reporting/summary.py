"""From runs to what is compared: groups of equal configuration, and in each a summary of every strategy over seeds.

All views (console, Markdown, HTML, plots) show these objects and report.json is these objects: they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reporting import statistics
from reporting.caveats import caveats
from reporting.runs import Evaluation, Run
from reporting.settings import apart
from reporting.statistics import Mean, Reached, Spread
from reporting.updates import KNOWN_WRONG, Made, sentences
from runner.names import PADDING_CAUSES

ORDER = ("size1", "same_length", "bucketed", "padmask", "packed", "timestep", "token_budget", "stream", KNOWN_WRONG)
REFERENCE = "padmask"  # quality is compared with it, since it is the standard
SLOWEST = "size1"


@dataclass(frozen=True)
class Strategy:
    """One batching strategy of a group, over its seeds. What could not be measured is None or missing."""

    name: str
    known_wrong: bool
    run_ids: dict[int, str]  # by seed, as every dict[int, ...] here
    quality: Mean | None  # on test
    quality_by_seed: dict[int, float]
    difference_to_padmask: Mean | None  # of quality, paired by seed
    seconds_to_target: Reached  # seconds of training until an evaluation on valid reached the group's target
    real_tokens_per_s: Spread | None
    speedup_over_size1: Spread | None  # ratio of real tokens/s, paired by seed
    speedup_over_padmask: Spread | None
    padding_share: float | None  # padded / (real + padded), mean over runs, 0..1
    padding_by_cause: dict[str, float]  # share of all positions in memory, mean over runs, 0..1
    peak_memory_bytes: Spread | None
    memory_sources: list[str]
    kernels: list[str]
    updates: dict[int, tuple[int, str]]  # count, digest
    evaluations: dict[int, tuple[Evaluation, ...]]  # on valid


@dataclass(frozen=True)
class Target:
    """A quality on valid; `given` by the user, else the worst of the runs' best, which every run reaches."""

    quality: float | None
    given: bool


@dataclass(frozen=True)
class Group:
    """Runs whose configuration differs in batching and seed alone."""

    title: str
    metric: str
    higher_is_better: bool
    comparison_hash: str
    data_fingerprint: str
    settings: dict[str, str]  # what sets this group apart from others of the same title
    target: Target
    strategies: list[Strategy]
    machines: list[str]  # host, CPU, threads and device of the runs
    majority: dict[str, float]  # what always answering train's most frequent label gets on test
    baselines: dict[str, float]  # the quality on test of each of the simplest models, majority among them; best first
    sentences: list[str]  # on equal updates
    caveats: list[str]


def groups(runs: list[Run], target: float | None, confidence: float) -> list[Group]:
    """Runs grouped by configuration, data and metric; groups are never pooled. In the order of their titles."""
    by_key: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        key = (_title(run), _hash(run), run.text("provenance.data_fingerprint"), run.metric)
        by_key.setdefault(key, []).append(run)
    settings = apart({key: each[0] for key, each in by_key.items()})
    return [_group(by_key[key], settings[key], target, confidence) for key in sorted(by_key)]


def rank(strategy: str) -> tuple[int, str]:
    """Strategies stand in a fixed order everywhere; those without a place in it come last, by name."""
    return (ORDER.index(strategy) if strategy in ORDER else len(ORDER), strategy)


def _title(run: Run) -> str:
    return " · ".join(run.text(key) for key in ("task", "dataset", "embedding", "encoder"))


def _hash(run: Run) -> str:
    return run.text("provenance.comparison_hash")


def _group(runs: list[Run], settings: dict[str, str], target: float | None, confidence: float) -> Group:
    by_strategy: dict[str, dict[int, Run]] = {}
    repeats = 0
    for run in sorted(runs, key=lambda run: (rank(run.strategy), run.seed, run.created)):
        seeds = by_strategy.setdefault(run.strategy, {})
        repeats += run.seed in seeds
        seeds[run.seed] = run  # the newest of the repeats stays
    first = runs[0]
    higher = bool(first.value("quality.higher_is_better"))
    chosen = [run for seeds in by_strategy.values() for run in seeds.values()]
    aim = Target(_common_target(chosen, higher) if target is None else target, target is not None)
    return Group(
        title=_title(first),
        metric=first.metric,
        higher_is_better=higher,
        comparison_hash=_hash(first),
        data_fingerprint=first.text("provenance.data_fingerprint"),
        settings=settings,
        target=aim,
        strategies=[_strategy(name, by_strategy, aim, higher, confidence) for name in by_strategy],
        machines=sorted({_machine(run) for run in chosen}),
        majority=_majority(first),
        baselines=_baselines(chosen, higher),
        sentences=sentences({name: _made(seeds) for name, seeds in by_strategy.items()}),
        caveats=caveats(by_strategy, repeats),
    )


def _strategy(
    name: str, by_strategy: Mapping[str, Mapping[int, Run]], target: Target, higher: bool, confidence: float
) -> Strategy:
    seeds, padmask = by_strategy[name], by_strategy.get(REFERENCE, {})
    quality, speed = _by_seed(seeds, _quality), _by_seed(seeds, _speed)
    gaps = statistics.differences(quality, _by_seed(padmask, _quality)) if name != REFERENCE else []
    size1 = by_strategy.get(SLOWEST, {})
    causes = {cause: _mean(_by_seed(seeds, _cause(cause))) for cause in PADDING_CAUSES}
    return Strategy(
        name=name,
        known_wrong=name == KNOWN_WRONG,
        run_ids={seed: run.text("run_id") for seed, run in seeds.items()},
        quality=statistics.mean_interval(list(quality.values()), confidence),
        quality_by_seed=quality,
        difference_to_padmask=statistics.mean_interval(gaps, confidence),
        seconds_to_target=statistics.reached([_seconds_to(run, target, higher) for run in seeds.values()]),
        real_tokens_per_s=statistics.spread(list(speed.values())),
        speedup_over_size1=statistics.spread(statistics.ratios(speed, _by_seed(size1, _speed))),
        speedup_over_padmask=statistics.spread(statistics.ratios(speed, _by_seed(padmask, _speed))),
        padding_share=_mean(_by_seed(seeds, lambda run: _share(run, run.number("tokens.padded")))),
        padding_by_cause={cause: share for cause, share in causes.items() if share is not None},
        peak_memory_bytes=statistics.spread(
            list(_by_seed(seeds, lambda run: run.number("memory.peak_bytes")).values())
        ),
        memory_sources=_texts(seeds, "memory.source"),
        kernels=_texts(seeds, "kernel"),
        updates={seed: run.updates for seed, run in seeds.items()},
        evaluations={seed: run.evaluations for seed, run in seeds.items()},
    )


def _made(seeds: Mapping[int, Run]) -> Made:
    updates = {seed: run.updates for seed, run in seeds.items()}
    return Made(updates, _by_seed(seeds, _quality), any(run.value("updates.dropout") for run in seeds.values()))


def _machine(run: Run) -> str:
    host, cpu, threads, device = (run.text(f"provenance.{key}") or "?" for key in ("host", "cpu", "threads", "device"))
    return f"{host}: {cpu}, {threads} thread{'' if threads == '1' else 's'}, device {device}"


def _majority(run: Run) -> dict[str, float]:
    """Figures of the baseline: the quality and, beside it, accuracy."""
    names = dict.fromkeys((run.metric, "accuracy"))
    return {name: value for name in names if (value := run.number(f"majority.{name}")) is not None}


def _baselines(runs: list[Run], higher: bool) -> dict[str, float]:
    """Of the simplest models that any of the runs has; they know neither strategy nor seed."""
    found: dict[str, float] = {}
    for run in runs:
        named = {"majority": run.number(f"majority.{run.metric}")}
        others = run.value("baselines")
        if isinstance(others, Mapping):
            named |= {str(name): run.number(f"baselines.{name}.{run.metric}") for name in others}
        found |= {name: value for name, value in named.items() if value is not None}
    return dict(sorted(found.items(), key=lambda one: -one[1] if higher else one[1]))


def _common_target(runs: list[Run], higher: bool) -> float | None:
    best = [(max if higher else min)(each.quality for each in run.evaluations) for run in runs if run.evaluations]
    return (min if higher else max)(best) if best else None


def _seconds_to(run: Run, target: Target, higher: bool) -> float | None:
    """Seconds of training at the first evaluation that reached the target; nothing is read between evaluations."""
    aim = target.quality
    if aim is None:
        return None
    there = (each for each in run.evaluations if (each.quality >= aim if higher else each.quality <= aim))
    first = next(there, None)
    return first.seconds if first else None


def _by_seed(seeds: Mapping[int, Run], measure: Callable[[Run], float | None]) -> dict[int, float]:
    return {seed: value for seed, run in seeds.items() if (value := measure(run)) is not None}


def _quality(run: Run) -> float | None:
    return run.number(f"metrics.test.{run.metric}")


def _speed(run: Run) -> float | None:
    return run.number("speed.real_tokens_per_s")


def _cause(cause: str) -> Callable[[Run], float | None]:
    return lambda run: _share(run, run.number(f"padding.{cause}"))


def _share(run: Run, padded_tokens: float | None) -> float | None:
    """Padded tokens as a share of all positions in memory, 0..1."""
    real, padded = run.number("tokens.real"), run.number("tokens.padded")
    if padded_tokens is None or real is None or padded is None or real + padded == 0:
        return None
    return padded_tokens / (real + padded)


def _mean(values: Mapping[int, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def _texts(seeds: Mapping[int, Run], path: str) -> list[str]:
    return sorted({text for run in seeds.values() if (text := run.text(path))})
