"""Keys of mappings that would replace one another: YAML reads `true` and `1` as values that Python takes for equal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from runner.common.errors import HydromelError, shortened
from runner.compat.hydra import mappings_of

Key = tuple[str, object]  # (the key as it is written, its value)


def text_of_key(key: object) -> str:
    """Return the string that a key stands for: `{0: 2.0}` means the label `0`, `{true: 2.0}` the label `true`."""
    return json.dumps(key) if isinstance(key, bool) else str(key)


def check_keys_of_override(override: str) -> None:
    """Raise HydromelError if two keys of a mapping in `key=value` are equal, so that one would replace the other."""
    for keys in mappings_of(override):
        if pair := _clash(keys):
            option = override.partition("=")[0].lstrip("+~")
            advice = f"give them one by one: ++{option}.{pair[0]}=VALUE ++{option}.{pair[1]}=VALUE"
            raise HydromelError(f"{shortened(override)}: {_lost(pair, advice)}")


def check_keys_of_files(folders: Sequence[str], choices: Mapping[str, object]) -> None:
    """Check the chosen configs (by group) in the user's folders in the same way.

    A file that is not YAML is left to Hydra, which reports it.
    """
    names = (f"{group.partition('@')[0]}/{name}.yaml" for group, names in choices.items() for name in _names(names))
    for path in dict.fromkeys(Path(folder, name) for name in names for folder in folders):
        if not path.is_file():
            continue
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError):
            continue
        for keys, line in _mappings_in(node):
            if pair := _clash(keys):
                advice = f'quote them: "{pair[0]}": VALUE'
                raise HydromelError(f"{path}:{line}: {_lost(pair, advice)}")


def _lost(pair: tuple[str, str], advice: str) -> str:
    if pair[0] == pair[1]:
        return f"the key {pair[0]} is given twice; give it once"
    return f"the keys {pair[0]} and {pair[1]} are one key to YAML, so a value would be lost; {advice}"


def _names(names: object) -> list[str]:
    return [str(name) for name in names] if isinstance(names, list | tuple) else [str(names)]


def _mappings_in(root: yaml.Node | None) -> Iterator[tuple[list[Key], int]]:
    """Yield the keys of each mapping below a node, and its line."""
    loader, left, seen = yaml.SafeLoader(""), [root], set[int]()
    while left:
        node = left.pop()
        if id(node) in seen:  # an anchor, which may refer to itself
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        if isinstance(node, yaml.MappingNode):
            scalars = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag[-5:] != "merge"]
            yield [(key.value, loader.construct_object(key)) for key in scalars], node.start_mark.line + 1
            left += [value for _, value in node.value]


def _clash(keys: Iterable[Key]) -> tuple[str, str] | None:
    """Return two keys, as they are written, that are equal or stand for the same string."""
    seen: dict[object, str] = {}
    for written, value in keys:
        for same in (("value", value), ("text", text_of_key(value))):
            if same in seen:
                return seen[same], written
        seen |= {("value", value): written, ("text", text_of_key(value)): written}
    return None
