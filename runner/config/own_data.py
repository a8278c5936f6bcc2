"""`data=FILE`: options for a user's file, which are derived from its content and replace the argument."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

import configs
from runner.common.errors import HydromelError

log = logging.getLogger(__name__)
_DATA = "data="


class Guess(Protocol):
    """The options for some files."""

    @property
    def found(self) -> str:
        """The content of the files, in words."""

    @property
    def options(self) -> Mapping[str, object]:
        """The options that the files stand for."""


_told: list[str] = []  # the line about the arguments that were expanded last, until a run has taken it


def take_told() -> list[str]:
    """Return the line about `data=` of the arguments that were expanded last, once, for the record of their run."""
    told, _told[:] = [*_told], []
    return told


def with_own_data(arguments: Sequence[str], tell: bool = True) -> list[str]:
    """Return arguments of a command with `data=FILE` or `data=TRAIN,VALID,TEST` replaced by the options for them.

    With `tell`, a line says what was found, with a command that gives the same run. Arguments without `data=` are
    returned as they are.

    Raises:
        HydromelError: the files are missing or unclear, or contradict the other arguments.
    """
    given = [argument for argument in arguments if argument.startswith(_DATA)]
    others = [argument for argument in arguments if not argument.startswith(_DATA)]
    _told.clear()
    if not given or given[-1] == f"{_DATA}null":
        return others
    if len(given) > 1:
        raise HydromelError(f"{given[0]} {given[1]}: give data= once, as data=TRAIN,VALID,TEST")
    if any(argument.startswith("resume=") for argument in others):
        raise HydromelError(
            f"{given[0]} has no effect with resume=, which continues with the run's own data; leave it out"
        )
    overrides, line = _expanded(given[0].removeprefix(_DATA), tuple(others), tell)
    _told.append(line)
    return overrides


@cache  # some commands compose several configs from the same arguments; they report only once
def _expanded(value: str, others: tuple[str, ...], tell: bool) -> tuple[list[str], str]:
    """Return the options, and the line about them, which is logged if `tell`."""
    module, _, name = configs.DATA.rpartition(".")
    function: Callable[[Sequence[str], Mapping[str, object]], Guess] = getattr(import_module(module), name)
    value = value.strip("'\"")
    guess = function([value] if Path(value).is_file() else value.split(","), _values(others))
    overrides = [f"{key}={written(option)}" for key, option in guess.options.items()] + [*others]
    line = f"data={value}: {guess.found}; as: {shlex.join(['hydromel', *overrides])}"
    if tell:
        log.info("%s", line)
    return overrides, line


def _values(overrides: Sequence[str]) -> dict[str, object]:
    """Return the values of overrides by their keys; those that Hydra will refuse, and sweeps, are left out."""
    values: dict[str, object] = {}
    for override in overrides:
        try:
            parsed = OverridesParser.create().parse_overrides([override])[0]
        except (HydraException, ValueError, RecursionError):
            continue
        if not parsed.is_sweep_override():
            values[parsed.key_or_group] = _plain(parsed.value())
    return values


def _plain(value: object) -> object:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    return value


def written(value: object) -> str:
    """Return a value as Hydra reads it on the command line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {written(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, float):
        return repr(value)  # also nan and inf
    if not isinstance(value, str):
        return json.dumps(value)
    is_plain = _values([f"key={value}", f"inside={{key: {value}}}"]) == {"key": value, "inside": {"key": value}}
    return value if is_plain else QuotedString(value, Quote.single).with_quotes()
