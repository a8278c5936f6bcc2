"""Settings that distinguish groups with the same title, and variants of a strategy, read from resolved.yaml.

Variants are runs whose batching has the same name but other options. They are never treated as equal.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from reporting.runs.run import Run
from runner.common.bounded import MOST_YAML_BYTES, parse_yaml, read_bytes, read_yaml
from runner.common.class_names import with_stable_names
from runner.common.errors import HydromelError
from runner.common.run_schema import RESOLVED

# keys that do not affect what is compared, or that may differ inside a group; also names of config groups in `choices`
IGNORED_KEYS = frozenset(
    {"batching", "seed", "tracker", "baselines", "hydra", "data_dir", "cache_dir", "runs_dir"}
    | {"sweep", "experiment", "resume", "run_plots", "plugins", "given", "system_metrics_s"}
)
MISSING = "—"
SAME_AS_MOST = "as in most groups here"
MOST_SETTINGS = 6  # most settings in a heading, since more would be unreadable
SECTION = re.compile(r"^batching:.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)  # parsing whole configs would take seconds
BATCH_SIZE = "batching.batch_size"  # the setting of groups that differ in it

Key = tuple[str, ...]
Options = Mapping[str, str]  # options by dotted name


def distinguishing_settings(first_runs: Mapping[Key, Run]) -> dict[Key, dict[str, str]]:
    """Return, by group key, the settings that distinguish a group from the others with its title (key[0]).

    The only group with a title has none. Groups whose configs agree or are missing differ in their comparison hash or
    data. Where more than `MOST_SETTINGS` settings differ, as in an ablation, a group shows those in which it differs
    from most groups.
    """
    titles: dict[str, list[Key]] = {}
    for key in first_runs:
        titles.setdefault(key[0], []).append(key)
    settings: dict[Key, dict[str, str]] = {keys[0]: {} for keys in titles.values()}
    for keys in titles.values():
        if len(keys) == 1:
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
        config = read_yaml(run.folder / RESOLVED)
    except HydromelError:
        config = None
    compared = with_stable_names(_without_ignored(config)) if isinstance(config, dict) else {}
    if isinstance(choices := compared.get("choices"), dict):
        compared["choices"] = _without_ignored(choices)
    return {**compared, "data": run.text("provenance.data_fingerprint")[:8]}


def _without_ignored(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in IGNORED_KEYS}


def _differences(values: Sequence[object], name: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name (such as `train.epochs`) and every group's value of each setting in which groups differ.

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
    return _scalar_text(value)


def _majority(values: Sequence[str]) -> str | None:
    """Return the value that more than half of the groups have, or None."""
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None


def options(run: Run) -> Options:
    """Return the options of the run's batching from its resolved.yaml; none where that is missing or damaged."""
    try:
        text = read_bytes(run.folder / RESOLVED, MOST_YAML_BYTES).decode(errors="replace")
    except HydromelError:
        return {}
    section = SECTION.search(text)
    return _parse(section.group()) if section else {}


def split_by_batch_size(runs: list[Run]) -> list[list[Run]]:
    """Split one group's runs by batch size if any strategy has several sizes.

    Another batch size trains differently, so strategies are compared at equal sizes only.
    """
    # `auto` chooses its own batch size, so several sizes in its runs do not form separate groups.
    sizes = [batch_size(run) for run in runs]
    chosen = {(run.strategy, size) for run, size in zip(runs, sizes, strict=True) if not _is_auto(run)}
    if len(chosen) == len({strategy for strategy, _ in chosen}):
        return [runs]
    # Sizes are texts: sorted by length first, 16 comes before 128.
    order = sorted(set(sizes), key=lambda size: (len(size), size))
    return [[run for run, own in zip(runs, sizes, strict=True) if own == size] for size in order]


def differing_batch_sizes(groups: Sequence[tuple[str, list[Run]]]) -> list[dict[str, str]]:
    """Return the most frequent batch size of each group (title, runs), where groups of the same title differ in it."""
    usual = []
    for title, runs in groups:
        # `null` (a strategy without a batch size) counts only if no run of the group has a size.
        counts = Counter(map(batch_size, runs))
        usual.append((title, max(counts, key=lambda size: (size != "null", counts[size]))))
    titles = Counter(title for title, _ in set(usual))
    return [{BATCH_SIZE: size} if titles[title] > 1 else {} for title, size in usual]


def name_variants(runs: list[Run]) -> list[Run]:
    """Return the same runs, with variants named: the most frequent options keep the plain name of the strategy.

    The choices of `auto` are not options: it is one strategy, whatever it chose.
    """
    by_strategy: dict[str, list[Run]] = {}
    for run in runs:
        by_strategy.setdefault(run.strategy, []).append(run)
    named = []
    for same_strategy in by_strategy.values():
        run_options = [options(run) for run in same_strategy]
        keys = Counter(json.dumps(own, sort_keys=True) for own in run_options)
        if len(keys) == 1 or any(map(_is_auto, same_strategy)):
            named += same_strategy
            continue
        usual = json.loads(keys.most_common(1)[0][0])
        pairs = zip(same_strategy, run_options, strict=True)
        named += [replace(run, variant=_difference(own, usual)) for run, own in pairs]
    return named


def _scalar_text(value: object) -> str:
    """Return a config value as YAML writes it: `null`, `true`, `0.5`."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def batch_size(run: Run) -> str:
    """Return the batch size as YAML writes it; `null` for a strategy without one."""
    return options(run).get("batch_size", "null")


def _is_auto(run: Run) -> bool:
    return run.result.get("advice") is not None


def _difference(own: Options, usual: Options) -> str:
    """Return ` layout=packed, plan.buckets=5`; empty for the usual options."""
    differing = {key: own.get(key, "none") for key in sorted({*own, *usual}) if own.get(key) != usual.get(key)}
    return f" {', '.join(f'{key}={value}' for key, value in differing.items())}" if differing else ""


@lru_cache(maxsize=4096)
def _parse(section: str) -> Options:
    try:
        config = parse_yaml(section, RESOLVED)
    except HydromelError:
        return {}
    loaded = config.get("batching") if isinstance(config, Mapping) else None
    return dict(_flatten(with_stable_names(loaded), "")) if isinstance(loaded, Mapping) else {}


def _flatten(section: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _scalar_text(value)
