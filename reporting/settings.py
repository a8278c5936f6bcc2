"""What sets apart groups that would otherwise have the same title, read from one run's resolved.yaml each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from reporting.runs import Run
from runner.names import RESOLVED

# top-level keys that say nothing about what is compared, or that may differ inside a group
APART_FROM = frozenset(
    {"batching", "seed", "tracker", "hydra", "data_dir", "cache_dir", "sweep_id", "experiment", "resume"}
)
MISSING = "—"
SHOWN = 6  # settings; more would drown the title

Key = tuple[str, ...]


def apart(first_runs: Mapping[Key, Run]) -> dict[Key, dict[str, str]]:
    """Group key -> the settings by which it differs from the other groups of its title (key[0]).

    A group that is alone with its title has none. Where the configs agree or are missing, hash and data must differ.
    """
    titles: dict[str, list[Key]] = {}
    for key in first_runs:
        titles.setdefault(key[0], []).append(key)
    settings: dict[Key, dict[str, str]] = {}
    for keys in titles.values():
        if len(keys) == 1:
            settings[keys[0]] = {}
            continue
        configs = {key: _settings(first_runs[key]) for key in keys}
        names = sorted({name for config in configs.values() for name in config})
        differing = [name for name in names if len({config.get(name, MISSING) for config in configs.values()}) > 1]
        for key in keys:
            shown = {name: configs[key].get(name, MISSING) for name in differing[:SHOWN]}
            settings[key] = shown or {"config": first_runs[key].text("provenance.comparison_hash")[:8]}
    return settings


def _settings(run: Run) -> dict[str, str]:
    """The run's config as `train.epochs` -> `3`, and which data it saw; a missing or damaged config adds nothing."""
    try:
        text = (run.folder / RESOLVED).read_text(encoding="utf-8")
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    chosen = {key: value for key, value in config.items() if key not in APART_FROM} if isinstance(config, dict) else {}
    return {**dict(_flat(chosen, "")), "data": run.text("provenance.data_fingerprint")[:8]}


def _flat(config: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", str(value)
