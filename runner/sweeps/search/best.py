"""Write the best trial as `experiment/best.yaml`: its changes of the searched experiment, ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.common.files import write_text
from runner.config.schema import Plain, RunConfig
from runner.sweeps.search.outcome import Outcome
from runner.sweeps.search.space import Space, at

PLACE = Path("experiment") / "best.yaml"
_NOT_KEPT = ("experiment", "search", "sweep", "resume", "plugins")  # no file may say which modules are trusted


def write_best(outcome: Outcome, folder: Path, overrides: Sequence[str], config: RunConfig, space: Space) -> None:
    """Write the best config into a search's folder, in place of an earlier one.

    Args:
        overrides: of the command that searched.
        config: of the best trial.
    """
    (folder / PLACE.parent).mkdir(exist_ok=True)
    write_text(folder / PLACE, best_yaml(outcome, overrides, config.resolved, space))


def best_yaml(outcome: Outcome, overrides: Sequence[str], config: Plain, space: Space) -> str:
    """Return the config's text."""
    assert outcome.best is not None
    kept, not_kept = _kept(overrides)
    choices = config["choices"]
    assert isinstance(choices, Mapping)
    names: list[object] = []
    values: dict[str, object] = {}
    for key in dict.fromkeys([*kept, *space.dimensions]):
        if key in choices:
            names.append({f"override /{key}": choices[key]})
        else:
            values[key] = at(config, key)
    base = [choices["experiment"]] if choices.get("experiment") else []
    body = _nested({**values, "search": None, "sweep.id": f"best-of-{outcome.id}-${{now:%Y%m%d-%H%M%S}}"})
    lines = [
        "# @package _global_",
        f"# {outcome.metric} on valid {outcome.best.value:.4f}: trial {outcome.best.number}, the best of "
        f"{len(outcome.trials)} of the search {outcome.id}; test was not used.",
        "# hydromel --config-dir FOLDER experiment=best, where FOLDER contains experiment/best.yaml",
        *(f"# also give: {override}" for override in not_kept),
        _yaml({"defaults": [*base, *names, "_self_"]}) + _yaml(body),
    ]
    return "\n".join(lines)


def _kept(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the keys that the command gave, and its overrides that cannot be written to a file."""
    keys, not_kept = [], []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group.split(".")[0] == "plugins" or override.is_delete():
            not_kept.append(str(override.input_line))
        elif override.key_or_group.split(".")[0] not in _NOT_KEPT:
            keys.append(override.key_or_group)
    return keys, not_kept


def _nested(values: Plain) -> dict[str, object]:
    """Return nested mappings in place of dotted keys."""
    nested: dict[str, object] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        node = nested
        for parent in parents:
            inner = node.setdefault(parent, {})
            assert isinstance(inner, dict)
            node = inner
        node[last] = value
    return nested


def _yaml(content: Plain) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
