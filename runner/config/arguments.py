"""Abbreviations on a command line: `~` in any value, and `data=FILE`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from runner.config.own_data import with_own_data, written

_HOME = re.compile(
    r"(^|[\[,] *)(~[\w.-]*(?:/[^,\]]*)?)(?=$|[,\]])"
)  # a value, or an item of a list, that starts with ~


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
