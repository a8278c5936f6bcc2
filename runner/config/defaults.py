"""The default of each option, read from `configs/`, and the options of a run that differ from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files

import yaml

from runner.common.class_names import TARGET
from runner.config.schema import Plain

_ROOT = "train"
_OTHER_OPTION = re.compile(r"\$\{([\w.]+)\}")  # a default that is the value of another option


def flattened(config: Plain, prefix: str = "") -> dict[str, object]:
    """Return the options of a config by dotted name; lists and empty mappings are values."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        nested = isinstance(value, Mapping) and value
        flat |= flattened(nested, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def differing(config: Plain) -> dict[str, object]:
    """Return the options of a resolved config that differ from the defaults of the configs chosen for its groups.

    Options that no file in `configs/` has, such as a plugin's, count as different. Classes belong to the choices.
    """
    choices = config.get("choices")
    chosen = {str(group): [str(name)] for group, name in choices.items()} if isinstance(choices, Mapping) else {}
    if isinstance(features := config.get("features"), Mapping):
        chosen.setdefault("features", list(map(str, features)))  # features=[words,chars] chooses several
    defaults = dict(_defaults_of(_ROOT))
    for group, names in chosen.items():
        for name in names:
            defaults |= _at(group, _defaults_of(f"{group}/{name}"))
    actual = flattened({key: value for key, value in config.items() if key != "choices"})
    return {
        key: value
        for key, value in actual.items()
        if not (key.endswith(TARGET) or (key in defaults and _is_default(value, defaults[key], actual)))
    }


def _is_default(value: object, default: object, actual: Plain) -> bool:
    if isinstance(default, str) and "${" in default:
        other = _OTHER_OPTION.fullmatch(default)
        return other is None or other[1] not in actual or actual[other[1]] == value
    return value == default


@cache
def _defaults_of(name: str) -> dict[str, object]:
    """Return the options of a file below `configs/` and of the files that it is made of; empty if there is none."""
    file = files("configs").joinpath(f"{name}.yaml")
    if not file.is_file():
        return {}
    content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    below: dict[str, object] = {}
    for place, part in _parts(name, content.pop("defaults", [])):
        below |= _at(place, _defaults_of(part))
    return below | flattened(content)


def _parts(name: str, listed: list[object]) -> Iterator[tuple[str, str]]:
    """Yield the files in the defaults list of the file `name`, each with the key of its options (`parts.words`)."""
    folder = name.rpartition("/")[0]
    for entry in listed if folder else []:  # the root's entries are the choices, which are handled elsewhere
        if isinstance(entry, str) and entry != "_self_":
            file, _, place = entry.partition("@")
            yield place, f"{folder}/{file}"
        elif isinstance(entry, Mapping):
            for key, file in entry.items():
                group, _, place = str(key).removeprefix("/").partition("@")
                if not group.startswith("override "):
                    yield place, f"{group}/{file}"


def _at(place: str, options: Plain) -> dict[str, object]:
    return {f"{place}.{key}" if place else key: value for key, value in options.items()}
