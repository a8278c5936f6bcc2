"""Write the best trial as `experiment/best.yaml`: its changes of the searched experiment, ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from runner.config.schema import Plain
from runner.sweeps.search.outcome import Outcome
from runner.sweeps.search.space import Space, at

_NOT_KEPT = ("experiment", "search", "sweep", "resume", "plugins")  # no file may say which modules are trusted


def best_yaml(outcome: Outcome, overrides: Sequence[str], config: Plain, space: Space) -> str:
    """Return the text of the best trial's `config`, where `overrides` are those of the command that searched."""
    assert outcome.best is not None
    kept, not_kept = _kept(overrides)
    choices = config["choices"]
    assert isinstance(choices, Mapping)
    keys = list(dict.fromkeys([*kept, *space.dimensions]))
    names = [{f"override /{key}": choices[key]} for key in keys if key in choices]
    base = [choices["experiment"]] if choices.get("experiment") else []
    body = OmegaConf.create({})
    for key in (key for key in keys if key not in choices):
        OmegaConf.update(body, key, at(config, key))
    body.search = None
    OmegaConf.update(body, "sweep.id", f"best-of-{outcome.id}-${{now:%Y%m%d-%H%M%S}}")
    lines = [
        "# @package _global_",
        f"# {outcome.metric} on valid {outcome.best.value:.4f}: trial {outcome.best.number}, the best of "
        f"{len(outcome.trials)} of the search {outcome.id}; test was not used.",
        "# hydromel --config-dir FOLDER experiment=best, where FOLDER contains experiment/best.yaml",
        *(f"# also give: {override}" for override in not_kept),
        _yaml({"defaults": [*base, *names, "_self_"]}) + _yaml(OmegaConf.to_container(body)),
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


def _yaml(content: object) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
