"""Summarise finished runs over seeds: test and dev with standard deviation and Student t interval, speed, duration.

    python benchmarks/measured.py wnut17=RUNS/wnut17-s* ud_ewt=RUNS/ewt-s* --json benchmarks/results/tagging.json

Each argument is a name and a pattern of run folders: the seeds of one configuration. Prints a Markdown table and writes
every seed's figures, commit, machine and load. Test scores are those of the epoch that was best on dev.
"""

from __future__ import annotations

import argparse
import json
from glob import glob
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from reporting.runs.run import Run, read
from reporting.statistics.intervals import mean_interval
from runner.common.errors import HydromelError

CONFIDENCE = 0.95
HEADER = """| runs | seeds | test | 95 % interval | sd | dev | sd | tokens/s | seconds per run |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("groups", nargs="+", metavar="NAME=PATTERN")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    try:
        groups = {name: group(pattern) for name, _, pattern in (each.partition("=") for each in options.groups)}
    except HydromelError as error:
        parser.error(str(error))
    print(HEADER, *(line(name, made) for name, made in groups.items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(groups, indent=1) + "\n", encoding="utf-8")


def group(pattern: str) -> dict[str, Any]:
    """Return the figures of the runs that fit `pattern`.

    Raises HydromelError if there are none, or if they are unfinished or differ in metric.
    """
    found = [read(Path(folder)) for folder in sorted(glob(pattern))]
    unfinished = [str(each.folder) for each in found if each.run is None]
    if not found or unfinished:
        raise HydromelError(f"{pattern!r}: {'not finished: ' + unfinished[0] if unfinished else 'no such folder'}")
    runs = [each.run for each in found if each.run is not None]
    metrics = {run.metric for run in runs}
    if len(metrics) > 1:
        raise HydromelError(
            f"{pattern!r}: these runs have different metrics ({', '.join(sorted(metrics))}); name runs of one metric"
        )
    seeds = [figures(run) for run in runs]
    return {
        "metric": runs[0].metric,
        "test": over_seeds([seed["test"] for seed in seeds]),
        "dev": over_seeds([seed["dev"] for seed in seeds]),
        "real_tokens_per_s": median(seed["real_tokens_per_s"] for seed in seeds),
        "total_seconds": median(seed["total_seconds"] for seed in seeds),
        "seeds": seeds,
    }


def figures(run: Run) -> dict[str, Any]:
    """Return the figures of one run."""
    return {
        "seed": run.seed,
        "test": run.number(f"metrics.test.{run.metric}"),
        "dev": run.number(f"metrics.valid.{run.metric}"),
        "epochs": run.number("updates.epochs"),
        "real_tokens_per_s": run.number("speed.real_tokens_per_s"),
        "total_seconds": run.number("seconds.total"),
        "parameters": run.number("model.parameters"),
        "config_hash": run.text("provenance.config_hash"),
        "git_commit": run.text("provenance.git_commit"),
        "cpu": run.text("provenance.cpu"),
        "threads": run.text("provenance.threads"),
        "load_average": run.number("provenance.load_average"),
    }


def over_seeds(values: list[float]) -> dict[str, float | None]:
    """Return mean, bounds of its interval, and the sample's standard deviation; None for one seed."""
    interval = mean_interval(values, CONFIDENCE)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {"mean": fmean(values), "low": low, "high": high, "sd": stdev(values) if len(values) > 1 else None}


def line(name: str, made: dict[str, Any]) -> str:
    """Return a row of the table."""
    test, dev = made["test"], made["dev"]
    interval = f"{test['low']:.2f} to {test['high']:.2f}" if test["low"] is not None else "-"
    spreads = ["-" if each["sd"] is None else f"{each['sd']:.2f}" for each in (test, dev)]
    cells = [name, len(made["seeds"]), f"{test['mean']:.2f}", interval, spreads[0], f"{dev['mean']:.2f}", spreads[1]]
    cells += [f"{made['real_tokens_per_s']:,.0f}", f"{made['total_seconds']:,.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
