"""Variants of a strategy: runs whose batching has the same name but other options. They are never treated as equal."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import yaml

from reporting.runs.run import Run
from runner.common.class_names import with_stable_names
from runner.common.run_schema import RESOLVED

SECTION = re.compile(r"^batching:.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)  # parsing whole configs would take seconds
BATCH_SIZE = "batch_size"
Options = Mapping[str, str]  # by dotted name


def options(run: Run) -> Options:
    """Return the options of the run's batching from its resolved.yaml; none where that is missing or damaged."""
    try:
        section = SECTION.search((run.folder / RESOLVED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return _parse(section.group()) if section else {}


def split_by_batch_size(runs: list[Run]) -> list[list[Run]]:
    """Split one group's runs by batch size if any strategy has several sizes.

    Another batch size trains differently, so strategies are compared at equal sizes only.
    """
    # `auto` chooses its own batch size, so several sizes in its runs are no reason to split.
    sizes = [_batch_size(run) for run in runs]
    by_strategy: dict[str, set[str]] = {}
    for run, size in zip(runs, sizes, strict=True):
        if not _is_auto(run):
            by_strategy.setdefault(run.strategy, set()).add(size)
    if all(len(own_sizes) == 1 for own_sizes in by_strategy.values()):
        return [runs]
    # Sizes are texts: sorted by length first, 16 comes before 128.
    order = sorted(set(sizes), key=lambda size: (len(size), size))
    return [[run for run, own in zip(runs, sizes, strict=True) if own == size] for size in order]


def differing_batch_sizes(groups: Sequence[tuple[str, list[Run]]]) -> list[dict[str, str]]:
    """Return, for each group (title, runs), the batch size of most of its runs, if groups of its title differ in it."""
    usual = []
    for _, runs in groups:
        # `null` (a strategy without a batch size) counts only if no run of the group has a size.
        counts = Counter(map(_batch_size, runs))
        usual.append(max(counts, key=lambda size: (size != "null", counts[size])))
    by_title: dict[str, set[str]] = {}
    for (title, _), size in zip(groups, usual, strict=True):
        by_title.setdefault(title, set()).add(size)
    return [
        {f"batching.{BATCH_SIZE}": size} if len(by_title[title]) > 1 else {}
        for (title, _), size in zip(groups, usual, strict=True)
    ]


def name_variants(runs: list[Run]) -> list[Run]:
    """Return the same runs, with variants named: the most frequent options keep the plain name of the strategy.

    The choices of `auto` are not options: it is one strategy, whatever it chose.
    """
    by_strategy: dict[str, list[Run]] = {}
    for run in runs:
        by_strategy.setdefault(run.strategy, []).append(run)
    return [run for same_strategy in by_strategy.values() for run in _name_variants(same_strategy)]


def scalar_text(value: object) -> str:
    """Return a config value as YAML writes it: `null`, `true`, `0.5`."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _batch_size(run: Run) -> str:
    return options(run).get(BATCH_SIZE, "null")


def _is_auto(run: Run) -> bool:
    return run.result.get("advice") is not None


def _name_variants(runs: list[Run]) -> list[Run]:
    run_options = [options(run) for run in runs]
    keys = [json.dumps(own, sort_keys=True) for own in run_options]
    if len(set(keys)) == 1 or any(_is_auto(run) for run in runs):
        return runs
    usual = json.loads(Counter(keys).most_common(1)[0][0])
    return [replace(run, variant=_difference(own, usual)) for run, own in zip(runs, run_options, strict=True)]


def _difference(own: Options, usual: Options) -> str:
    """Return ` layout=packed, plan.buckets=5`; empty for the usual options."""
    differing = {key: own.get(key, "none") for key in sorted({*own, *usual}) if own.get(key) != usual.get(key)}
    return f" {', '.join(f'{key}={value}' for key, value in differing.items())}" if differing else ""


@lru_cache(maxsize=4096)
def _parse(section: str) -> Options:
    try:
        loaded = yaml.safe_load(section)["batching"]
    except yaml.YAMLError:
        return {}
    return dict(_flatten(with_stable_names(loaded), "")) if isinstance(loaded, Mapping) else {}


def _flatten(section: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", scalar_text(value)
