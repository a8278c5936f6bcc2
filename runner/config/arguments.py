"""Abbreviations: `~` in any value of a command line or a YAML file, and `data=FILE` on a command line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from runner.config.own_data import with_own_data, written

_HOME = re.compile(
    r"(^|[\[,] *)(~[\w.-]*(?:/[^,\]]*)?)(?=$|[,\]])"
)  # a value, or an item of a list, that starts with ~
_HOME_OF_PATH = re.compile(r"(sqlite:///)?(~[\w.-]*/.*)")


def as_overrides(arguments: Sequence[str], tell: bool = True) -> list[str]:
    """Return arguments of a command as overrides: `~` is replaced by the home directory, `data=` by its options.

    Raises HydromelError as `with_own_data`, which takes `tell`.
    """
    return with_own_data([_with_home(argument) for argument in arguments], tell)


def _with_home(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if "~" not in value:
        return argument
    return key + equals + _HOME.sub(lambda match: match[1] + written(os.path.expanduser(match[2])), value)


def with_home(value: object) -> object:
    """Return a value of a config in which every path, at any depth, has the home directory for `~/` at its start.

    So has the path of a URI for SQLite: `sqlite:///~/mlflow.db`. `~` by itself is no path.
    """
    if isinstance(value, str):
        match = _HOME_OF_PATH.fullmatch(value)
        return (match[1] or "") + os.path.expanduser(match[2]) if match else value
    if isinstance(value, list):
        return [with_home(item) for item in value]
    return {key: with_home(item) for key, item in value.items()} if isinstance(value, dict) else value
