"""`repeat=N`: run one config with N seeds, each in a separate process, and report the variation of its figures."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError
from runner.common.intervals import half_width
from runner.common.records import parse_result
from runner.common.run_schema import RESULT
from runner.config.compose import resolve
from runner.sweeps.jobs import SweepJobs, folder_name, sweep_id

log = logging.getLogger(__name__)


def run_repeats(
    config: DictConfig,
    choices: Mapping[str, object],
    overrides: Sequence[str],
    hydra_overrides: Sequence[str],
    jobs: SweepJobs,
) -> None:
    """Run `config` for its seed, the next one, ..., below runs_dir/sweep.id; then report how its figures vary.

    The config is composed but not resolved, so that interpolations of the seed follow it. `overrides` are those of the
    command line, and `hydra_overrides` those of Hydra's own options.

    Raises:
        HydromelError: the number is not allowed, or an option is for a single run.
    """
    asked = resolve(config, choices, overrides)
    first, count = asked.seed, asked.repeat
    if asked.resume is not None:
        raise HydromelError(f"resume={asked.resume} is for single runs; continue repeat={count} with sweep.id=ID")
    if asked.search is not None:
        raise HydromelError(f"repeat={count}: a search runs each trial once; give search=null")
    if any(override.startswith("hydra.run.dir=") for override in hydra_overrides):
        raise HydromelError(
            f"hydra.run.dir names one folder, but repeat={count} writes several below runs_dir/sweep.id; set runs_dir "
            "and sweep.id"
        )
    jobs.sweep = Path(asked.runs_dir) / sweep_id(asked)
    jobs.count = count
    names = []
    with jobs:
        for seed in range(first, first + count):
            seeded = deepcopy(config)
            seeded.seed, seeded.repeat = seed, 1
            repeated = resolve(seeded, choices, overrides)
            jobs.add(repeated, f"seed={seed}")
            names.append(folder_name(repeated))
    files = [jobs.sweep / name / RESULT for name in names if name in jobs.finished]
    for line in spread([parse_result(read_bytes(file), str(file)) for file in files]):
        log.info(line)


def spread(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for the quality and one for the speed of runs of one config; none without runs."""
    if not results:
        return []
    metric = results[0]["quality"]["metric"]
    split = "test" if "test" in results[0]["metrics"] else "valid"
    # A record that was read lacks what is null in the file: a figure that is not finite, the speed of too few updates.
    quality = [result["metrics"][split].get(metric) for result in results]
    speed = [result["speed"].get("real_tokens_per_s") for result in results]
    quality, speed = ([value for value in values if value is not None] for values in (quality, speed))
    return [f"{split} {metric}: {_mean(quality)}", f"real tokens/s: {_median(speed)}"]


def _mean(known: Sequence[float]) -> str:
    """Return mean, 95 % interval (Student 1908, n - 1 degrees of freedom), standard deviation and range of n seeds."""
    if len(known) < 2:
        return _few(known, ".2f")
    mean, deviation = statistics.fmean(known), statistics.stdev(known)
    return (
        f"{mean:.2f} ± {half_width(known, 0.95):.2f} (95 %, Student's t, {len(known)} seeds), standard deviation "
        f"{deviation:.2f}, range {min(known):.2f} to {max(known):.2f}"
    )


def _median(known: Sequence[float]) -> str:
    if len(known) < 2:
        return _few(known, ",.0f")
    return f"median {statistics.median(known):,.0f}, range {min(known):,.0f} to {max(known):,.0f}"


def _few(known: Sequence[float], form: str) -> str:
    return f"{known[0]:{form}} (of one run)" if known else "—"
