"""The search space: the options that vary, and their values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.common.errors import HydromelError
from runner.config.schema import RunConfig
from runner.config.validation import Section

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = dict[str, object]  # by dotted option
_WHERE = "search.space"
_NAME = re.compile(r"[\w./-]+")


class Interval(Section):
    """Numbers from `low` to `high`, both included; integers if `low`, `high` and `step` are integers.

    Attributes:
        log: draw on a logarithmic scale.
        step: values are `low`, `low` + step, ...; None: any number, or any integer.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def check(self, where: str) -> None:
        """Raise HydromelError for an empty interval, or one that cannot be sampled."""
        if not self.low < self.high:
            raise HydromelError(f"{where}: low={self.low} must be below high={self.high}")
        if self.log and self.low <= 0:
            raise HydromelError(f"{where}: low={self.low} must be above 0 with log: true")
        if self.step is None:
            return
        if self.log:
            raise HydromelError(f"{where}: step={self.step} and log: true exclude each other; leave one out")
        if self.step <= 0 or not self.contains(self.high):
            raise HydromelError(f"{where}: high={self.high} is not low={self.low} plus a multiple of step={self.step}")

    def contains(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.whole and not isinstance(value, int):
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return abs(steps - round(steps)) < 1e-9

    def probes(self) -> list[object]:
        """Return the values to check: if they are allowed, all are."""
        return [self.low, self.high]

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.step or 1))
        return FloatDistribution(self.low, self.high, self.log, self.step)

    def decoded(self, drawn: object) -> object:
        return drawn

    def __str__(self) -> str:
        return f"from {self.low} to {self.high}" + ("" if self.step is None else f" in steps of {self.step}")


class Choices(Section):
    """One of a few values of any kind. The study stores lists and mappings as JSON."""

    choices: list[object]

    def check(self, where: str) -> None:
        """Raise HydromelError for fewer than two values, or a repeated one."""
        known = [json.dumps(choice) for choice in self.choices]
        if len(set(known)) < max(2, len(known)):
            raise HydromelError(f"{where}: choices={self.choices}; give two values or more, each once")

    def contains(self, value: object) -> bool:
        return any(json.dumps(value) == json.dumps(choice) for choice in self.choices)

    def probes(self) -> list[object]:
        return self.choices

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        scalars: list[Any] = list(map(_encoded, self.choices))
        return CategoricalDistribution(scalars)

    def decoded(self, drawn: object) -> object:
        return next(choice for choice in self.choices if json.dumps(_encoded(choice)) == json.dumps(drawn))

    def __str__(self) -> str:
        return f"one of {', '.join(map(str, self.choices))}"


@dataclass(frozen=True)
class Space:
    """The options that vary, by dotted key; some are groups of configs (`encoder`), whose values are names."""

    dimensions: dict[str, Interval | Choices]
    groups: frozenset[str]

    @classmethod
    def of(cls, node: Mapping[str, object], groups: Mapping[str, object]) -> Space:
        """Return the space in a config: {option: {low: ..., high: ...} or {choices: [...]}}, options dotted or nested.

        Args:
            groups: name -> node of each group in the composed config.

        Raises:
            HydromelError: the space is empty, or has an unknown option or an interval that cannot be sampled.
        """
        dimensions: dict[str, Interval | Choices] = {}
        for key, dimension in _flat(node, ""):
            kind = Choices if "choices" in dimension else Interval
            dimensions[key] = kind.of(dimension, f"{_WHERE}.{key}")
            dimensions[key].check(f"{_WHERE}.{key}")
            if key in groups:
                _check_names(key, dimensions[key])
        if not dimensions:
            raise HydromelError(
                f"{_WHERE} is empty; name the options to search, for example optimizer.lr: {{low: 1e-4, high: 0.1}}"
            )
        return cls(dimensions, frozenset(dimensions) & frozenset(groups))

    def values(self, params: Mapping[str, object]) -> Values:
        """Return the values in the config of a trial's parameters."""
        return {key: dimension.decoded(params[key]) for key, dimension in self.dimensions.items()}

    def params(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return a trial's parameters for values in the config."""
        return {key: _encoded(values[key]) for key in self.dimensions}

    def overrides(self, values: Mapping[str, object]) -> tuple[list[str], Values]:
        """Return `GROUP=NAME` for the groups, and the values of options."""
        names = [f"{key}={_name(values[key])}" for key in self.dimensions if key in self.groups]
        return names, {key: value for key, value in values.items() if key not in self.groups}

    def probes(self) -> Iterator[Values]:
        """Yield points of the space that together contain every name and every bound."""
        probes = {key: dimension.probes() for key, dimension in self.dimensions.items()}
        for place in range(max(map(len, probes.values()))):
            yield {key: values[place % len(values)] for key, values in probes.items()}

    def defaults(self, config: RunConfig) -> Values:
        """Return the values that `config` has.

        Raises:
            HydromelError: a value that is not in the space.
        """
        resolved = config.resolved
        values = {key: config.choices[key] if key in self.groups else at(resolved, key) for key in self.dimensions}
        for key, value in values.items():
            if not self.dimensions[key].contains(value):
                raise HydromelError(
                    f"{_WHERE}.{key}: {self.dimensions[key]}, but the first trial is the config, with {key}={value}; "
                    "add this value to the space, or give search.begin_with_defaults=false"
                )
        return values


def at(config: Mapping[str, object], key: str) -> object:
    """Return the value at a dotted key."""
    value: object = config
    for part in key.split("."):
        assert isinstance(value, Mapping)
        value = value[part]
    return value


def _flat(node: Mapping[str, object], prefix: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield dimensions by dotted key: mappings with `choices`, `low` or `high`."""
    for key, dimension in node.items():
        if not isinstance(dimension, Mapping) or not dimension:
            raise HydromelError(
                f"{_WHERE}.{prefix}{key}={dimension!r}: give {{low: ..., high: ...}} or {{choices: [...]}}"
            )
        if {"choices", "low", "high"} & dimension.keys():
            yield f"{prefix}{key}", dimension
        else:
            yield from _flat(dimension, f"{prefix}{key}.")


def _check_names(group: str, dimension: Interval | Choices) -> None:
    if isinstance(dimension, Interval):
        raise HydromelError(f"{_WHERE}.{group}: a group takes names; give {{choices: [...]}}")
    for value in dimension.choices:
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise HydromelError(f"{_WHERE}.{group}: choices={dimension.choices}; give names, as in {group}=NAME")


def _name(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _encoded(value: object) -> object:
    """Return a value as the study stores it: lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value
