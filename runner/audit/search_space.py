"""Every combination of task, encoder and their options that configs/ offer, each small, under every strategy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.audit.checks.verdict import Report
from runner.audit.config_audit import Options, audit_config
from runner.common.errors import HydromelError
from runner.config.compose import compose_config, compose_strategies, names_of, under
from runner.config.instantiate import alternatives
from runner.config.schema import Node, RunConfig

SMALL, SIZES = 8, ("size", "hidden", "filters", "feedforward")  # numbers a vector
SMALL_DATA = ("features.words.max_size=30", "threads=1")
SMALL_SAMPLE = Options(rows=10, longest=9, arithmetics=("float32",), heat=False, explained=False)
CONTROLS = ("encoder.norm=batch",)  # answers depend on the batch by nature, in training: the audit must see it
LEFT = ("name", "quality")  # options of a task that no model sees


@dataclass(frozen=True)
class Audited:
    """What came of one combination: a report, or why there is no such model."""

    choice: str
    report: Report | None
    unfit: str = ""

    @property
    def is_control(self) -> bool:
        """Whether the audit has to fail it."""
        return any(one in CONTROLS for one in self.choice.split())

    @property
    def passed(self) -> bool:
        """It is batch-invariant; or is none by nature, and the audit says so."""
        return self.report is not None and self.report.passed is not self.is_control

    def as_dict(self) -> dict[str, Any]:
        """Plain values: each strategy's failed checks."""
        if self.report is None:
            return {"choice": self.choice, "unfit": self.unfit}
        failed = {
            name: sorted({one.check for one in self.report.failures(controls=True) if one.subject == name})
            for name in self.report.subjects()
        }
        return {
            "choice": self.choice,
            "passed": self.passed,
            "control": self.is_control,
            "failed": failed,
            "controls": list(self.report.controls),
            "facts": self.report.facts,
        }


def combinations(overrides: Sequence[str], config_dir: Path | None = None) -> list[tuple[str, ...]]:
    """Tasks x encoders x the task's options, and each option of an encoder by itself, as overrides.

    Options are those that take one of a few values (pooling, unit, activation, ...). What `overrides` choose stays.
    """
    given = {one.partition("=")[0] for one in overrides}
    found: dict[str, tuple[str, ...]] = {}  # by content: blstm is rnn with cell=lstm
    for task in _names("task", overrides, config_dir):
        for encoder in _names("encoder", overrides, config_dir):
            config = compose_config([*overrides, task, encoder], config_dir)
            nodes = _nodes(config)
            found.setdefault(json.dumps(nodes), (task, encoder))
            for group, name, value in _options(config):
                changed = {**nodes, group: {**nodes[group], name: value}}
                if f"{group}.{name}" not in given:
                    chosen = f"{group}.{name}={json.dumps(value).strip(chr(34))}"
                    found.setdefault(json.dumps(changed), (task, encoder, chosen))
    return list(found.values())


def audit_space(
    overrides: Sequence[str], config_dir: Path | None = None, chosen: Sequence[tuple[str, ...]] | None = None
) -> Iterator[Audited]:
    """Audit every combination in turn, or the `chosen` ones of them.

    Raises:
        HydromelError: overrides that do not compose.
    """
    configs, left_out = compose_strategies([*overrides, *SMALL_DATA], config_dir)
    for one in combinations(overrides, config_dir) if chosen is None else chosen:
        yield _audited([*one, *overrides], configs, left_out, config_dir)


def _audited(
    overrides: Sequence[str], strategies: Sequence[RunConfig], left_out: Mapping[str, str], config_dir: Path | None
) -> Audited:
    """One combination, at small sizes, under strategies that were composed once for all."""
    whole = compose_config([*overrides, *SMALL_DATA], config_dir)
    config = RunConfig.of({key: _small(value) for key, value in whole.resolved.items()})
    choice = " ".join(dict.fromkeys(overrides))
    try:
        return Audited(choice, audit_config([under(config, one) for one in strategies], left_out, SMALL_SAMPLE))
    except HydromelError as error:
        return Audited(choice, None, str(error))


def _names(group: str, overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    chosen = [one for one in overrides if one.startswith(f"{group}=")]
    return chosen or [f"{group}={name}" for name in names_of(group, config_dir)]


def _nodes(config: RunConfig) -> dict[str, Node]:
    """Return the nodes whose options are varied."""
    return {"task": config.task, "encoder": config.encoder}


def _options(config: RunConfig) -> Iterator[tuple[str, str, object]]:
    """Yield group, option and value, for each value that an option of few values does not have."""
    for group, node in _nodes(config).items():
        for name, values in alternatives(node, group, config.plugins).items():
            if name not in LEFT:
                yield from ((group, name, value) for value in values)


def _small(node: object) -> object:
    """Return a part of a config with short vectors."""
    if not isinstance(node, Mapping):
        return node
    return {key: _shortened(value) if key in SIZES else _small(value) for key, value in node.items()}


def _shortened(value: object) -> object:
    if isinstance(value, list):
        return [SMALL] * min(1, len(value))
    return SMALL if isinstance(value, int) else value
