"""The location of a fault: the first module at which values of real tokens differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from runner.audit.checks.compare import Difference, SingleReference, largest_magnitude
from runner.audit.checks.variations import BatchSpec
from runner.audit.tracing.alignment import possible, reading, split, worst_difference
from runner.audit.tracing.interventions import is_used
from runner.audit.tracing.module_state import seeded, unchanged
from runner.audit.tracing.observe import Key, Pass, Record, Setting, Side, Subject, observe, passes, trace
from runner.ragged.ragged import Ragged

_GRADIENT = "gradient of "


@dataclass(frozen=True)
class TracedPart:
    """A comparable part of a module's output: its value in the batch and in single-example runs."""

    record: Record
    members: tuple[int, ...]  # the examples
    batched: list[Tensor]  # one tensor for each member, from the batch
    single: list[Tensor]  # one tensor for each member, from its single-example run
    allowed: float  # largest |difference| that rounding explains
    by_length: list[list[Tensor]]  # `batched`, read as if the rows were sorted from long to short, or the reverse

    @property
    def differs(self) -> bool:
        return not all(map(self._is_close, self.batched, self.single))

    @property
    def is_permuted(self) -> bool:
        """True if the same values came out in another order, as inside modules that sort and unsort rows."""
        return any(map(self._is_matched, (self.batched, *self.by_length)))

    def _is_matched(self, values: list[Tensor]) -> bool:
        """Return True if the tensors can be matched one to one with those of the single-example runs."""
        left = list(self.single)
        for value in values:
            place = next((place for place, other in enumerate(left) if self._is_close(value, other)), None)
            if place is None:
                return False
            del left[place]
        return True

    def _is_close(self, value: Tensor, expected: Tensor) -> bool:
        return worst_difference(value, expected) <= self.allowed


class Locator:
    """Compares traces of batches with traces of single-example runs, module by module."""

    def __init__(self, reference: SingleReference) -> None:
        self.reference = reference
        self.subject: Subject = reference.subject
        self._passes: dict[tuple[int, str | None, Side], Pass] = {}

    def module_of(self, difference: Difference) -> str | None:
        """Return the dotted name of the module at which a difference arises, or None if it arises after all modules."""
        batch = difference.batch
        if "loss" in difference.quantity or difference.quantity == "prediction":
            return None  # outputs are compared first, so they agree
        if difference.quantity.startswith(_GRADIENT):
            return difference.quantity.removeprefix(_GRADIENT).rpartition(".")[0]
        for run in [batch, batch.against] if batch.against else [batch]:
            if (module := self._find_first(run)) is not None:
                return module
        return self._find_in_fused_path(batch)

    def _find_first(self, batch: BatchSpec) -> str | None:
        """Return the first module whose output differs and is used.

        Outputs that are only permuted are passed over, since a module may sort rows and unsort them later; they are
        blamed if nothing else differs.
        """
        permuted = []
        for step in self.steps(batch):
            if not step.differs or not is_used(self.subject, batch.rows, batch.setting, step.record):
                continue
            if not step.is_permuted:
                return self._module_or_caller(batch, step.record.module)
            permuted.append(step.record.module)
        # The module that sorted encloses another permuted module; else it is the first of all.
        for name in permuted:
            if any(other != name and other.startswith(name and f"{name}.") for other in permuted):
                return name
        return next(iter(permuted), None)

    def witnesses(self) -> tuple[int, ...]:
        """Return up to three examples of different lengths, which show which axis of a tensor is which."""
        by_length = {int(self.subject.lengths[row]): row for row in self.reference.good}
        return tuple(list(by_length.values())[-3:])

    def steps(self, batch: BatchSpec, only: str | None = None, side: Side = "outputs") -> list[TracedPart]:
        """Return the comparable parts of the outputs (or inputs) of all modules, or `only` one, in execution order."""
        # A shape such as (3, 3, D) can be read in several ways; batches of other sizes and widths leave a single one.
        others = []
        for group in (self.witnesses(), self.witnesses()[:2]):
            others += passes(self.subject, group, batch.setting, only, side)
        singles = {row: self._single_pass(row, only, side) for row in {*batch.rows, *self.witnesses()}}
        return [
            step
            for forward_pass in passes(self.subject, batch.rows, batch.setting, only, side)
            for key in forward_pass.records
            if (step := self._step(key, forward_pass, others, singles)) is not None
        ]

    def _module_or_caller(self, batch: BatchSpec, module: str) -> str:
        """Return the module itself or, if its inputs already differ, the module whose code computed them."""
        given = self.steps(batch, module, "inputs") if module else []
        if not any(step.differs and not step.is_permuted for step in given):
            return module
        caller = module.rpartition(".")[0]  # the next enclosing one that is not a list or dict of modules
        while isinstance(self.subject.module.get_submodule(caller), nn.ModuleList | nn.ModuleDict):
            caller = caller.rpartition(".")[0]
        return caller

    def _step(
        self, key: Key, forward_pass: Pass, others: Sequence[Pass], singles: Mapping[int, Pass]
    ) -> TracedPart | None:
        how = _reading(key, [forward_pass, *others])
        single_reading = _reading(key, list(singles.values()))
        if how is None or single_reading is None or any(key not in singles[row].records for row in forward_pass.rows):
            return None
        value, geometry = forward_pass.records[key].value, forward_pass.geometry
        values = split(value, how, geometry)
        single_passes = [singles[row] for row in forward_pass.rows]
        expected = [split(run.records[key].value, single_reading, run.geometry)[0] for run in single_passes]
        if len(values) != len(expected) or any(a.shape != b.shape for a, b in zip(values, expected, strict=True)):
            return None  # for example characters of words, padded to the longest word of the batch
        falling, rising = tuple(sorted(geometry.lengths, reverse=True)), tuple(sorted(geometry.lengths))
        # A pair's texts cannot be sorted independently of each other, so pairs have no sorted reading.
        orders = [replace(geometry, lengths=lengths) for lengths in (falling, rising) if geometry.texts == 1]
        by_length = [split(value, how, order) for order in orders if how in possible(value, order)]
        allowed = self.reference.tolerance.of(largest_magnitude(expected), self.reference.measured)
        return TracedPart(forward_pass.records[key], forward_pass.rows, values, expected, allowed, by_length)

    def _single_pass(self, row: int, only: str | None, side: Side) -> Pass:
        key = row, only, side
        if key not in self._passes:
            (self._passes[key],) = passes(self.subject, [row], Setting(), only, side)
        return self._passes[key]

    def _find_in_fused_path(self, batch: BatchSpec) -> str:
        """Return the first module that differs when only one module has a hook, or an empty string.

        Torch leaves its fused paths where modules have hooks, so such a fault is hidden while all modules have hooks.
        """
        names = (name for name, _ in self.subject.module.named_modules() if name)
        return next((name for name in names if any(step.differs for step in self.steps(batch, only=name))), "")


def _reading(key: Key, forward_passes: Sequence[Pass]) -> str | None:
    """Return the reading of a part that fits all passes that have it."""
    having = [forward_pass for forward_pass in forward_passes if key in forward_pass.records]
    return reading((forward_pass.records[key].value, forward_pass.geometry) for forward_pass in having)


def first_not_finite(subject: Subject, difference: Difference) -> str:
    """Return the first module that returned a NaN or, for a gradient that is NaN, the one through which it came."""
    batch = difference.batch
    records = trace(subject, batch.rows, batch.setting)
    for record in records:
        if bool(_tensor(record).isnan().any()):
            return record.module
    # The forward pass may mask a NaN that the backward pass brings back: it arose right after the last module whose
    # parameters have NaN gradients.
    gradients = observe(subject, batch.rows, batch.setting).gradients
    touched = {name.rpartition(".")[0] for name, grad in gradients.items() if bool(grad.isnan().any())}
    last = max((place for place, record in enumerate(records) if record.module in touched), default=-1)
    return records[last + 1].module if 0 <= last < len(records) - 1 else ""


def first_changed(subject: Subject, batch: BatchSpec, other: BatchSpec) -> str:
    """Return the first module whose output for a batch changes after it has processed another batch."""
    with unchanged(subject.module):
        first = trace(subject, batch.rows, batch.setting, keep_state=True)
        trace(subject, other.rows, other.setting, keep_state=True)
        again = trace(subject, batch.rows, batch.setting, keep_state=True)
    return _first_different(first, again)


def first_random(subject: Subject, batch: BatchSpec) -> str:
    """Return the first module whose output changes with the seed, for the same inputs."""
    with seeded(1):
        first = trace(subject, batch.rows, batch.setting)
    with seeded(2):
        return _first_different(first, trace(subject, batch.rows, batch.setting))


def _first_different(first: Sequence[Record], second: Sequence[Record]) -> str:
    """Return the module of the first part that differs between two traces, or an empty string."""
    parts = {record.key: _tensor(record) for record in first}
    pairs = ((record, parts[record.key]) for record in second if record.key in parts)
    return next((record.module for record, part in pairs if worst_difference(_tensor(record), part) > 0), "")


def _tensor(record: Record) -> Tensor:
    part = record.value
    return part if isinstance(part, Tensor) else part.values if isinstance(part, Ragged) else part.data


def module_label(subject: Subject, module: str) -> str:
    """Return name and class of a module, as in `encoder.forwards.0 (Recurrence)`; of the root only its class."""
    kind = type(subject.module.get_submodule(module)).__name__
    return f"{module} ({kind})" if module else kind
