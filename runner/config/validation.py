"""Sections of a config as pydantic models. A mistake is reported in one line: the key, its value, what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from runner.common.errors import HydromelError, did_you_mean, quoted, shortened

MISSING = "???"  # OmegaConf's mark of a value that the user has to give
_UNKNOWN, _NOT_GIVEN, _BAD = range(3)  # kinds of mistakes, in the order in which they are reported
_KINDS = {"extra_forbidden": _UNKNOWN, "missing": _NOT_GIVEN}  # pydantic's type of an error -> kind


class Section(BaseModel):
    """A section of the config: its fields are the schema. Types are strict, and unknown keys are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def of(cls, options: Mapping[str, object], where: str = "") -> Self:
        """Return the section that `options` describe; `where` is its own key, empty for the top level.

        Raises:
            HydromelError: an unknown key, a missing one, or a value of the wrong type or range.
        """
        try:
            return cls.model_validate(_given(cls, options))
        except ValidationError as error:
            raise HydromelError(_first_mistake(cls, error, options, where)) from error

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the options that a user may give."""
        return list(cls.model_fields)


def unknown_option(name: str, allowed: Iterable[str], where: str) -> str:
    """Return the message for a key that is not among `allowed` in the section `where`."""
    options = list(allowed)
    known = ", ".join(options) or "none"
    return f"{dotted(where, name)}: unknown option{did_you_mean(name, options)} Allowed: {known}"


def missing_option(name: str, where: str) -> str:
    """Return the message for a key without a value in the section `where`."""
    return f"{dotted(where, name)} is missing; give {dotted(where, name)}=VALUE"


def bad_value(where: str, value: object, error: ValidationError) -> str:
    """Return the message for the value at the key `where`, or for the wrong item in it."""
    return _innermost(_located(where, value, detail) for detail in error.errors())


def _located(where: str, value: object, detail: ErrorDetails) -> tuple[str, object, str]:
    """Return the key and the value at the place of pydantic's error within `value`, and the reason."""
    reason = detail["msg"].partition(" or instance of ")[0]  # users cannot give instances in a config
    for step in detail["loc"]:  # pydantic also counts the chosen member of a union as a step
        if isinstance(value, Mapping) and step in value:
            where, value = dotted(where, str(step)), value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            where, value = f"{where}[{step}]", value[step]
        elif step == "[key]":
            reason = f"its key: {reason}"
        elif isinstance(value, Mapping) and detail["type"] == "missing":
            reason = f"{step} is missing"
    return where, value, reason


def _innermost(places: Iterable[tuple[str, object, str]]) -> str:
    """Return the message for the innermost of some places in a value; each reason of a union is given once."""
    wrong = list(places)
    where, value, _ = max(wrong, key=lambda place: len(place[0]))
    reasons = dict.fromkeys(reason for place, _, reason in wrong if place == where)
    return f"{where}={quoted(value)}: {'; '.join(reasons)}"


def dotted(where: str, name: str) -> str:
    """Return the full key of the option `name` in the section `where`."""
    return f"{where}.{shortened(name)}" if where else shortened(name)


def _given(section: type[Section], options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that have a value, also within the sections of this section."""
    given = {key: value for key, value in options.items() if value != MISSING}
    for key, inner in _sections_in(section).items():
        if isinstance(value := given.get(key), Mapping):
            given[key] = _given(inner, value)
    return given


def _sections_in(section: type[Section]) -> dict[str, type[Section]]:
    """Return the fields that are sections themselves, optional ones too."""
    sections = {}
    for name, field in section.model_fields.items():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, Section):
                sections[name] = kind
    return sections


@dataclass(frozen=True)
class _Mistake:
    """An error of pydantic for one key of a section, or of a section within it."""

    rank: tuple[int, int]  # mistakes of the outer section come first; unknown keys, then missing ones, then values
    section: type[Section]
    where: str  # the key of that section
    name: str
    wrong: tuple[str, object, str]  # key, value and reason, as `_located` returns them

    @classmethod
    def of(cls, section: type[Section], detail: ErrorDetails, options: Mapping[str, object], where: str) -> _Mistake:
        wrong = _located(where, options, detail)
        name, *inside = map(str, detail["loc"])
        value, depth = options.get(name), 0
        while inside and isinstance(value, Mapping) and (inner := _sections_in(section).get(name)) is not None:
            section, where, depth = inner, dotted(where, name), depth + 1
            name, *inside = inside
            value = value.get(name)
        return cls((depth, _KINDS.get(detail["type"], _BAD)), section, where, name, wrong)


def _first_mistake(section: type[Section], error: ValidationError, options: Mapping[str, object], where: str) -> str:
    """Return the message for the first mistake."""
    mistakes = [_Mistake.of(section, detail, options, where) for detail in error.errors()]
    first = min(mistakes, key=lambda mistake: mistake.rank)
    if first.rank[1] == _UNKNOWN:
        return unknown_option(first.name, first.section.option_names(), first.where)
    if first.rank[1] == _NOT_GIVEN:
        return missing_option(first.name, first.where)
    return _innermost(
        mistake.wrong for mistake in mistakes if (mistake.where, mistake.name) == (first.where, first.name)
    )
