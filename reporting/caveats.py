"""What a reader of a comparison must know before believing it, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping

from reporting.runs import Run

COMPANY = 0.5  # load average beyond the run's own threads that says that others were at work
MACHINE = ("host", "device", "cpu", "threads")  # keys of provenance: what makes times comparable


def caveats(by_strategy: Mapping[str, Mapping[int, Run]], repeats: int) -> list[str]:
    """`by_strategy` is strategy -> seed -> run; `repeats` are older runs of the same strategy and seed, left out."""
    runs = [run for seeds in by_strategy.values() for run in seeds.values()]
    told = [_machines(runs), _busy(runs), _code(runs), _repeats(repeats), _seeds(by_strategy), _no_quality(runs)]
    return [sentence for sentence in told if sentence]


def _machines(runs: list[Run]) -> str:
    parts = [_differing(runs, f"provenance.{key}", key) for key in MACHINE]
    differing = "; ".join(part for part in parts if part)
    return f"Times and memory are not comparable: these runs differ in {differing}." if differing else ""


def _busy(runs: list[Run]) -> str:
    """Runs during which more processes wanted to run than the run itself has threads."""
    loads = [(run.number("provenance.load_average"), run.number("provenance.threads")) for run in runs]
    busy = [load for load, threads in loads if load is not None and threads is not None and load > threads + COMPANY]
    if not busy:
        return ""
    return (
        f"The machine was busy with other work in {len(busy)} of {len(runs)} runs (load up to {max(busy):.1f}): "
        "their times are too long, and ratios of them unsure."
    )


def _code(runs: list[Run]) -> str:
    parts = [_differing(runs, f"provenance.{key}", key) for key in ("git_commit", "versions.torch")]
    differing = "; ".join(part for part in parts if part)
    return f"These runs were made by different code: they differ in {differing}." if differing else ""


def _differing(runs: list[Run], path: str, name: str) -> str:
    """`host (a, b)` when the runs do not agree on what stands at `path`, else nothing."""
    values = sorted({run.text(path) for run in runs})
    return f"{name} ({', '.join(value or 'not recorded' for value in values)})" if len(values) > 1 else ""


def _repeats(repeats: int) -> str:
    if not repeats:
        return ""
    return f"{repeats} older run{'s' if repeats > 1 else ''} of the same strategy and seed left out: the newest counts."


def _seeds(by_strategy: Mapping[str, Mapping[int, Run]]) -> str:
    sets = {tuple(sorted(seeds)) for seeds in by_strategy.values()}
    if len(sets) > 1:
        return (
            "The strategies do not have the same seeds: differences and speed-ups are taken over the seeds both have."
        )
    if all(len(seeds) == 1 for seeds in sets):
        return "One seed only: no interval can be given, and a difference in quality may be chance."
    return ""


def _no_quality(runs: list[Run]) -> str:
    without = [f"{run.strategy} seed {run.seed}" for run in runs if run.number(f"metrics.test.{run.metric}") is None]
    if not without:
        return ""
    return f"No finite {runs[0].metric} on test, so left out of it: {', '.join(without)}."
