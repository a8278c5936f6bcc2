"""Runs whose batching has one name but other options: told apart by those, never taken for equal runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import yaml

from reporting.runs.run import Run
from runner.common.class_names import with_stable_names
from runner.common.run_schema import RESOLVED

SECTION = re.compile(r"^batching:.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)  # parsing whole configs would take seconds
BATCH_SIZE = "batch_size"
Options = Mapping[str, str]  # by dotted name


def options(run: Run) -> Options:
    """Options of the run's batching, from its resolved.yaml; none where that is missing or damaged."""
    try:
        section = SECTION.search((run.folder / RESOLVED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return _parsed(section.group()) if section else {}


def by_batch_size(runs: list[Run]) -> list[list[Run]]:
    """Runs of one group, apart by batch size if any strategy has several.

    Another batch size is other training: strategies are compared at the same one.
    """
    sizes = [options(run).get(BATCH_SIZE, "null") for run in runs]
    names: dict[str, set[str]] = {}
    for run, size in zip(runs, sizes, strict=True):
        if not _chose(run):
            names.setdefault(run.strategy, set()).add(size)
    if all(len(each) == 1 for each in names.values()):
        return [runs]
    order = sorted(set(sizes), key=lambda size: (len(size), size))
    return [[run for run, own in zip(runs, sizes, strict=True) if own == size] for size in order]


def batch_sizes(groups: Sequence[tuple[str, list[Run]]]) -> list[dict[str, str]]:
    """Of each group (title, runs) the batch size that most of its runs have, where those of its title differ in it."""
    usual = []
    for _, runs in groups:
        sizes = Counter(options(run).get(BATCH_SIZE, "null") for run in runs)
        usual.append(max(sizes, key=lambda size: (size != "null", sizes[size])))
    by_title: dict[str, set[str]] = {}
    for (title, _), size in zip(groups, usual, strict=True):
        by_title.setdefault(title, set()).add(size)
    return [
        {f"batching.{BATCH_SIZE}": size} if len(by_title[title]) > 1 else {}
        for (title, _), size in zip(groups, usual, strict=True)
    ]


def named(runs: list[Run]) -> list[Run]:
    """The same runs; a strategy's most frequent options keep its name, others are named after what differs.

    What `auto` chose for itself is no option: it is one strategy, whatever it chose.
    """
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.strategy, []).append(run)
    return [each for alike in by_name.values() for each in _named(alike)]


def _chose(run: Run) -> bool:
    return run.value("advice") is not None


def _named(alike: list[Run]) -> list[Run]:
    made = [options(run) for run in alike]
    keys = [json.dumps(each, sort_keys=True) for each in made]
    if len(set(keys)) == 1 or any(_chose(run) for run in alike):
        return alike
    usual = json.loads(Counter(keys).most_common(1)[0][0])
    return [replace(run, variant=_difference(own, usual)) for run, own in zip(alike, made, strict=True)]


def _difference(own: Options, usual: Options) -> str:
    """` layout=packed, plan.buckets=5`; empty for the usual ones."""
    differing = {key: own.get(key, "none") for key in sorted({*own, *usual}) if own.get(key) != usual.get(key)}
    return f" {', '.join(f'{key}={value}' for key, value in differing.items())}" if differing else ""


@lru_cache(maxsize=4096)
def _parsed(section: str) -> Options:
    try:
        loaded = yaml.safe_load(section)["batching"]
    except yaml.YAMLError:
        return {}
    return dict(_flat(with_stable_names(loaded), "")) if isinstance(loaded, Mapping) else {}


def _flat(value: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from _flat(each, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(each) if each is None or isinstance(each, bool) else str(each)
