"""The audit of every combination of task, encoder and their options in configs/, at small sizes, by every strategy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from runner.audit.checks.verdict import AuditReport
from runner.audit.config_audit import AuditOptions, audit_config
from runner.common.errors import HydromelError
from runner.config.compose import compose_config, compose_strategies, names_of, under
from runner.config.instantiate import alternatives
from runner.config.schema import Node, RunConfig, name_of
from runner.terminal.progress import track

SMALL, SIZES = 8, ("size", "hidden", "filters", "feedforward")  # dimension of vectors, and options that hold one
SMALL_DATA = ("features.words.max_size=30", "threads=1")
SMALL_SAMPLE = AuditOptions(rows=10, longest=9, arithmetics=("float32",), heat=False, explained=False)
CONTROLS = ("encoder.norm=batch",)  # batch norm mixes rows by design while training: the audit must fail it
LEFT = ("name", "quality")  # options of a task that do not change the model
NEEDED = {"task.pairs": ("dataset=stdlib_docstrings",)}  # overrides that an option's other values require
_strategies = cache(compose_strategies)  # composing takes seconds


@dataclass(frozen=True)
class CombinationResult:
    """The result of one combination: a report, or the reason why there is no such model."""

    choice: str
    report: AuditReport | None
    unfit: str = ""

    @property
    def is_control(self) -> bool:
        """True if the audit must fail this combination."""
        return any(override in CONTROLS for override in self.choice.split())

    @property
    def passed(self) -> bool:
        """True for a batch-invariant model, and for a control that the audit fails."""
        return self.report is not None and self.report.passed is not self.is_control

    def as_dict(self) -> dict[str, object]:
        """Return plain values with each strategy's failed checks."""
        if self.report is None:
            return {"choice": self.choice, "unfit": self.unfit}
        pairs = {(verdict.subject, verdict.check) for verdict in self.report.failures(controls=True)}
        return {
            "choice": self.choice,
            "passed": self.passed,
            "control": self.is_control,
            "failed": {name: sorted(c for s, c in pairs if s == name) for name in self.report.subjects()},
            "controls": list(self.report.controls),
            "facts": {} if self.report.facts is None else self.report.facts.by_name(),
        }


class Combination(NamedTuple):
    """A combination of a task and an encoder: the overrides that choose them, and an option's value."""

    overrides: tuple[str, ...]
    varied: str  # class, option and value, such as `conv.activation=tanh`; empty if all options have their defaults


def combinations(overrides: Sequence[str], config_dir: Path | None = None) -> list[Combination]:
    """Return tasks x encoders, and for each of these pairs each other value of each option, one at a time.

    Options are those that take one of a few values (pooling, unit, activation, ...). The choices of `overrides` stay
    fixed.
    """
    given = {override.partition("=")[0] for override in overrides}
    # Keyed by the composed config, so that a model under two names (blstm is rnn with cell=lstm) is audited once.
    chosen: dict[str, Combination] = {}
    tasks, encoders = (_names(group, overrides, config_dir) for group in ("task", "encoder"))
    for task, encoder in product(tasks, encoders):
        config = compose_config([*overrides, task, encoder], config_dir)
        nodes = {"task": config.task, "encoder": config.encoder}
        chosen.setdefault(json.dumps(nodes), Combination((task, encoder), ""))
        for group, name, value in _options(nodes, config.plugins):
            if f"{group}.{name}" not in given:
                changed = {**nodes, group: {**nodes[group], name: value}}
                assignment = f"{name}={json.dumps(value).strip(chr(34))}"
                varied = f"{name_of(nodes[group])}.{assignment}"
                needed = NEEDED.get(f"{group}.{name}", ())
                combination = Combination((task, encoder, f"{group}.{assignment}", *needed), varied)
                chosen.setdefault(json.dumps(changed), combination)
    return list(chosen.values())


def audit_space(
    overrides: Sequence[str], config_dir: Path | None = None, chosen: Sequence[tuple[str, ...]] | None = None
) -> Iterator[CombinationResult]:
    """Audit every combination in turn, or only the `chosen` ones, by every strategy or those of `batching=a,b`.

    Raises:
        HydromelError: the overrides do not compose.
    """
    configs, left_out = _strategies((*overrides, *SMALL_DATA), config_dir)
    overrides = [override for override in overrides if not override.startswith("batching=")]
    if chosen is None:
        chosen = [combination.overrides for combination in combinations(overrides, config_dir)]
    for combination in track(chosen, "auditing", len(chosen)):
        whole = compose_config([*combination, *overrides, *SMALL_DATA], config_dir)
        config = RunConfig.of({key: _small(value) for key, value in whole.resolved.items()})
        choice = " ".join(dict.fromkeys([*combination, *overrides]))
        try:
            report = audit_config([under(config, strategy) for strategy in configs], left_out, SMALL_SAMPLE)
            result = CombinationResult(choice, report)
        except HydromelError as error:
            result = CombinationResult(choice, None, str(error))
        yield result


def _names(group: str, overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """Return the overrides that choose a member of a config group: the given one, or one for each member."""
    chosen = [override for override in overrides if override.startswith(f"{group}=")]
    return chosen or [f"{group}={name}" for name in names_of(group, config_dir)]


def _options(nodes: Mapping[str, Node], plugins: Sequence[str]) -> Iterator[tuple[str, str, object]]:
    """Yield (group, option, value) for every value but the current one of each option with few allowed values."""
    for group, node in nodes.items():
        for name, values in alternatives(node, group, plugins).items():
            if name not in LEFT:
                yield from ((group, name, value) for value in values)


def _small(node: object) -> object:
    """Return a config with vectors of size `SMALL`; a list of sizes keeps a single one."""
    if not isinstance(node, Mapping):
        return node
    small = {key: _small(value) for key, value in node.items()}
    for key in small.keys() & SIZES:
        value = small[key]
        if isinstance(value, int | list):
            small[key] = [SMALL] * min(1, len(value)) if isinstance(value, list) else SMALL
    return small
