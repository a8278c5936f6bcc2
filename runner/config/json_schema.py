"""A JSON schema of the config, with which an editor completes and checks YAML files: `hydromel --schema FILE`.

It is derived from the typed config, the constructors named in `configs/`, and the comments there. No option is
required, since a file may give only some of them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import get_type_hints

from pydantic import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic_core import SchemaError

from runner.common.class_names import TARGET, registered
from runner.config.instantiate import GIVEN, locate, signed, type_adapter
from runner.config.schema import Node, RunConfig, SearchSettings

Schema = dict[str, object]
# an interpolation, or ??? for a value that the user must give
_LEFT_OPEN = {"type": "string", "pattern": r"^(\$\{.*\}|\?\?\?)$"}

_COMMENTED = re.compile(r"^(?P<indent> *)(?P<key>\w+):.*?\s#\s(?P<comment>.+)$")


def config_schema() -> Schema:
    """Return the schema of a file that composes into a config."""
    whole = RunConfig.model_json_schema()
    definitions = {name: _section(part, name) for name, part in whole.get("$defs", {}).items()}
    properties: dict[str, object] = {}
    for name, schema in whole["properties"].items():
        if name in RunConfig.option_names():
            properties[name] = _described(_or_open(schema), _comments("train.yaml").get(name))
    hints = get_type_hints(RunConfig, include_extras=True)
    nodes = [name for name in RunConfig.model_fields if hints[name] in (Node, Node | None)]
    for role in (*nodes, "features"):
        definitions[role] = _node(role)  # a file of a group is checked against FILE#/$defs/GROUP
        properties[role] = {"$ref": f"#/$defs/{role}"}
    properties["features"] = {"type": "object", "additionalProperties": properties["features"]}
    properties |= {"defaults": {"type": "array"}, "hydra": {"type": "object"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Hydromel",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _section(schema: Mapping[str, object], name: str) -> Schema:
    """Return the schema of a section, with no option required."""
    file, depth = ("search/optuna.yaml", 0) if name == SearchSettings.__name__ else ("train.yaml", 2)
    comments = _comments(file, depth)
    options = schema["properties"]
    assert isinstance(options, Mapping)
    described = {key: _described(_or_open(option), comments.get(key)) for key, option in options.items()}
    return {"type": "object", "properties": described, "additionalProperties": False}


def _node(role: str) -> Schema:
    """Return the schema of a node: the options of the classes that are registered for its role.

    Options of any other class, which must be a plugin's, are not checked.
    """
    targets = sorted(registered(role).values())
    options: dict[str, list[Schema]] = {}
    for target in targets:
        for name, schema in _options(target, role).items():
            schemas = options.setdefault(name, [])
            schemas += [schema] if schema not in schemas else []
    comments = _comments_of(role)
    properties = {name: _described(_or_open(*schemas), comments.get(name)) for name, schemas in sorted(options.items())}
    known = {TARGET: {"enum": targets}, "name": {"type": "string"}, "defaults": {"type": "array"}} | properties
    plugin = {"type": "object", "properties": {TARGET: {"not": {"enum": targets}}}, "required": [TARGET]}
    return {"anyOf": [{"type": "object", "properties": known, "additionalProperties": False}, plugin, {"type": "null"}]}


def _options(target: str, role: str) -> dict[str, Schema]:
    """Return the schema of each option of a class; an option that takes nodes is left open."""
    constructed = locate({TARGET: target}, role, ())
    hints = get_type_hints(signed(constructed), include_extras=True)
    names = [name for name in inspect.signature(constructed).parameters if name not in GIVEN.get(role, ())]
    return {name: _of_annotation(hints[name]) if name in hints else {} for name in names}


def _of_annotation(annotation: object) -> Schema:
    try:
        schema = type_adapter(annotation).json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema, SchemaError):
        return {}
    return {} if "$defs" in schema else schema


def _or_open(*schemas: Schema) -> Schema:
    """Return a schema that allows `schemas` and values that are left open. With {} among them it allows anything."""
    return {} if {} in schemas else {"anyOf": [*schemas, _LEFT_OPEN]}


def _described(schema: Schema, comment: str | None) -> Schema:
    return schema if comment is None else {"description": comment, **schema}


def _comments_of(role: str) -> dict[str, str]:
    """Return the comment on each option of a role; the first file by name wins."""
    folder = files("configs").joinpath(role)
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    comments: dict[str, str] = {}
    for name in names:
        comments = _comments(f"{role}/{name}") | comments
    return comments


def _comments(file: str, depth: int = 0) -> dict[str, str]:
    """Return the comment on each option of a YAML file that is indented by `depth` spaces."""
    lines = files("configs").joinpath(file).read_text(encoding="utf-8").splitlines()
    matches = [match for match in map(_COMMENTED.match, lines) if match is not None and len(match["indent"]) == depth]
    return {match["key"]: match["comment"].strip() for match in matches}
