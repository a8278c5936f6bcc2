"""Settings that distinguish groups with the same title, read from the resolved.yaml of one run of each group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import yaml

from reporting.runs.run import Run
from reporting.runs.variants import scalar_text
from runner.common.class_names import with_stable_names
from runner.common.run_schema import RESOLVED

# keys that do not affect what is compared, or that may differ inside a group; also names of config groups in `choices`
IGNORED_KEYS = frozenset(
    {"batching", "seed", "tracker", "baselines", "hydra", "data_dir", "cache_dir", "runs_dir"}
    | {"sweep", "experiment", "resume", "run_plots", "plugins"}
)
MISSING = "—"
SAME_AS_MOST = "as in most groups here"
MOST_SETTINGS = 6  # in a heading; more would make it unreadable

Key = tuple[str, ...]


def distinguishing_settings(first_runs: Mapping[Key, Run]) -> dict[Key, dict[str, str]]:
    """Return, by group key, the settings that distinguish a group from the others with its title (key[0]).

    The only group with a title has none. Groups whose configs agree or are missing differ in their comparison hash or
    data. Where more than `MOST_SETTINGS` settings differ, as in an ablation, a group shows those in which it differs
    from most groups.
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
        many = len(differing) > MOST_SETTINGS
        common = {name: _majority(values) if many else None for name, values in differing.items()}
        for place, key in enumerate(keys):
            own = {name: values[place] for name, values in differing.items() if values[place] != common[name]}
            shown = dict(list(own.items())[:MOST_SETTINGS]) or ({"settings": SAME_AS_MOST} if differing else {})
            settings[key] = shown or {"config": first_runs[key].comparison_hash[:8]}
    return settings


def _config(run: Run) -> dict[str, object]:
    """Return the run's configuration and its data's fingerprint; a missing or damaged config counts as empty."""
    try:
        text = (run.folder / RESOLVED).read_text(encoding="utf-8")
        config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    compared = with_stable_names(_without_ignored(config)) if isinstance(config, dict) else {}
    if isinstance(choices := compared.get("choices"), dict):
        compared["choices"] = _without_ignored(choices)
    return {**compared, "data": run.text("provenance.data_fingerprint")[:8]}


def _without_ignored(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in IGNORED_KEYS}


def _differences(values: Sequence[object], name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield `train.epochs` and the values of all groups, for each setting that is not the same in all of them.

    A component that some groups lack is one setting (its class), and its differing options are further settings.
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
                # The recursion saw only the groups that have this section: put their texts back in their places.
                remaining = iter(texts)
                yield part, [next(remaining) if isinstance(value, Mapping) else MISSING for value in values]


def _text(value: object) -> str:
    """Return a component as the name of its class, any other value as YAML writes it."""
    if isinstance(value, Mapping) and "_target_" in value:
        return str(value["_target_"]).rpartition(".")[2]
    return scalar_text(value)


def _majority(values: Sequence[str]) -> str | None:
    """Return the value that more than half of the groups have, or None."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None
