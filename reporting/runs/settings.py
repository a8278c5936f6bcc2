"""What sets apart groups that would otherwise have the same title, read from one run's resolved.yaml each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from reporting.runs.run import Run
from runner.common.class_names import with_stable_names
from runner.common.run_schema import RESOLVED

# keys that say nothing about what is compared, or that may differ inside a group; `choices` are names of groups
APART_FROM = frozenset(
    {"batching", "seed", "tracker", "baselines", "hydra", "data_dir", "cache_dir", "runs_dir"}
    | {"sweep", "experiment", "resume", "run_plots", "plugins"}
)
MISSING = "—"
AS_MOST = "as most groups here have them"
SHOWN = 6  # settings; more would drown the title

Key = tuple[str, ...]


def apart(first_runs: Mapping[Key, Run]) -> dict[Key, dict[str, str]]:
    """Group key -> the settings by which it differs from the other groups of its title (key[0]).

    A group that is alone with its title has none. Where the configs agree or are missing, hash and data must differ.
    Where more than `SHOWN` settings differ, as in an ablation, a group has those that most groups do not share.
    """
    titles: dict[str, list[Key]] = {}
    for key in first_runs:
        titles.setdefault(key[0], []).append(key)
    settings: dict[Key, dict[str, str]] = {}
    for keys in titles.values():
        if len(keys) == 1:
            settings[keys[0]] = {}
            continue
        differing = dict(_differences([_config(first_runs[key]) for key in keys], ""))
        usual = {name: _usual(values) if len(differing) > SHOWN else None for name, values in differing.items()}
        for place, key in enumerate(keys):
            own = {name: values[place] for name, values in differing.items() if values[place] != usual[name]}
            shown = dict(list(own.items())[:SHOWN]) or ({"settings": AS_MOST} if differing else {})
            settings[key] = shown or {"config": first_runs[key].text("provenance.comparison_hash")[:8]}
    return settings


def _config(run: Run) -> dict[str, Any]:
    """What the run was configured with, and which data it saw; a missing or damaged config adds nothing."""
    try:
        text = (run.folder / RESOLVED).read_text(encoding="utf-8")
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    chosen = with_stable_names(_compared(config)) if isinstance(config, dict) else {}
    if isinstance(names := chosen.get("choices"), dict):
        chosen["choices"] = _compared(names)
    return {**chosen, "data": run.text("provenance.data_fingerprint")[:8]}


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in APART_FROM}


def _differences(values: Sequence[Any], name: str) -> Iterator[tuple[str, list[str]]]:
    """`train.epochs` -> the values of all groups, for each setting in which they are not all the same.

    A part of the model that some lack is one setting, by its class, and its options are others where they differ too.
    """
    sections = [value for value in values if isinstance(value, Mapping)]
    if len(sections) < len(values):
        texts = [_text(value) for value in values]
        if len(set(texts)) > 1:
            yield name, texts
    if len(sections) == len(values) or all("_target_" in section for section in sections):
        for key in sorted({key for section in sections for key in section}):
            parts = _differences([section.get(key, MISSING) for section in sections], f"{name}.{key}" if name else key)
            for part, texts in parts:
                of_section = iter(texts)
                yield part, [next(of_section) if isinstance(value, Mapping) else MISSING for value in values]


def _text(value: Any) -> str:
    """A part of the model by its class, anything else as YAML has it."""
    if isinstance(value, Mapping) and "_target_" in value:
        return str(value["_target_"]).rpartition(".")[2]
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _usual(values: Sequence[str]) -> str | None:
    """The value that more than half of the groups have, if there is one."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None
