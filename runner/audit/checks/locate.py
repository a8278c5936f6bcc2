"""The first module at which values in valid positions differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from runner.audit.checks.compare import Alone, Difference
from runner.audit.checks.variations import Company
from runner.audit.tracing.alignment import Geometry, possible, reading, split, worst_difference
from runner.audit.tracing.forward_passes import Key, Pass, passes
from runner.audit.tracing.interventions import is_used
from runner.audit.tracing.module_state import seeded, unchanged
from runner.audit.tracing.observe import Record, Setting, Side, Subject, observe, trace
from runner.ragged.ragged import Ragged

_GRADIENT = "gradient of "


@dataclass(frozen=True)
class Step:
    """A part of a module's output that can be compared: one tensor for each of its `members`, together and alone."""

    record: Record
    members: tuple[int, ...]
    together: list[Tensor]
    alone: list[Tensor]
    allowed: float
    by_length: list[list[Tensor]]  # `together`, were the rows sorted from long to short, or from short to long

    def rows(self) -> list[int]:
        """Places among the members whose values differ."""
        pairs = enumerate(zip(self.together, self.alone, strict=True))
        return [place for place, (mine, theirs) in pairs if worst_difference(mine, theirs) > self.allowed]

    def is_permuted(self) -> bool:
        """Whether the same examples came out in another order, as within modules that sort and unsort."""
        return any(self._is_matched(together) for together in (self.together, *self.by_length))

    def _is_matched(self, together: list[Tensor]) -> bool:
        left = list(self.alone)
        for mine in together:
            match = next((place for place, one in enumerate(left) if worst_difference(mine, one) <= self.allowed), None)
            if match is None:
                return False
            del left[match]
        return True


class Locator:
    """Traces of the examples alone, against which traces of companies are laid.

    Args:
        alone: the reference in the same mode and arithmetic.
    """

    def __init__(self, alone: Alone) -> None:
        self.alone = alone
        self.subject: Subject = alone.subject
        self._passes: dict[tuple[int, str | None, Side], Pass] = {}

    def module_of(self, difference: Difference) -> str | None:
        """The dotted name of the module at which a difference arises; None where only the loss has it."""
        company = difference.company
        if "loss" in difference.quantity or difference.quantity == "prediction":
            return None  # outputs are compared first, and agree
        if difference.quantity.startswith(_GRADIENT):
            return difference.quantity.removeprefix(_GRADIENT).rpartition(".")[0]
        runs = [company, company.against] if company.against else [company]
        for run in runs:
            if (found := self._first(run)) is not None:
                return found
        return self._unwatched(company)

    def _first(self, company: Company) -> str | None:
        """The module at which a run first leaves the examples alone, among those that are used."""
        permuted = []
        for step in self.steps(company):
            if not step.rows() or not is_used(self.subject, company.rows, company.setting, step.record):
                continue
            if not step.is_permuted():
                return self._between(company, step.record.module)
            permuted.append(step.record.module)
        return sorter(permuted) if permuted else None

    def witnesses(self) -> tuple[int, ...]:
        """Up to three examples of other lengths, to tell axes apart."""
        by_length = {int(self.subject.lengths[row]): row for row, _ in self.alone.finite()}
        return tuple(list(by_length.values())[-3:])

    def steps(self, company: Company, only: str | None = None, of: Side = "outputs") -> list[Step]:
        """Every comparable part of what every module (or `only` one) returned or was given, in that order."""
        groups = [self.witnesses(), self.witnesses()[:2]]  # of other numbers and widths, to tell axes apart
        others = [one for group in groups for one in passes(self.subject, group, company.setting, only, of)]
        alone = {row: self._alone(row, only, of) for row in {*company.rows, *self.witnesses()}}
        found = []
        for one in passes(self.subject, company.rows, company.setting, only, of):
            for key in one.records:
                step = self._step(key, one, others, alone)
                if step is not None:
                    found.append(step)
        return found

    def _between(self, company: Company, module: str) -> str:
        """The module itself; or where what it was given differs already, the one whose own code made that."""
        given = self.steps(company, module, "inputs") if module else []
        differs = any(step.rows() and not step.is_permuted() for step in given)
        return self._owner(module) if differs else module

    def _owner(self, module: str) -> str:
        """The module whose code calls this one: the next outside that is no mere list."""
        outside = module.rpartition(".")[0]
        is_list = isinstance(self.subject.module.get_submodule(outside), nn.ModuleList | nn.ModuleDict)
        return self._owner(outside) if is_list else outside

    def _step(self, key: Key, one: Pass, others: Sequence[Pass], alone: Mapping[int, Pass]) -> Step | None:
        how = _reading(key, [one, *others])
        how_alone = _reading(key, list(alone.values()))
        if how is None or how_alone is None or any(key not in alone[row].records for row in one.rows):
            return None
        value = one.records[key].value
        mine = split(value, how, one.geometry)
        theirs = [split(alone[row].records[key].value, how_alone, alone[row].geometry)[0] for row in one.rows]
        if len(mine) != len(theirs) or any(a.shape != b.shape for a, b in zip(mine, theirs, strict=True)):
            return None  # such as characters of words, padded to the longest word of the batch
        scale = max((_size(one) for one in theirs), default=0.0)
        orders = [sorted_by(one.geometry, sign) for sign in (-1, 1)]
        by_length = [split(value, how, order) for order in orders if how in possible(value, order)]
        allowed = self.alone.tolerance.of(scale, self.alone.measured)
        return Step(one.records[key], one.rows, mine, theirs, allowed, by_length)

    def _alone(self, row: int, only: str | None, of: Side) -> Pass:
        key = row, only, of
        if key not in self._passes:
            (self._passes[key],) = passes(self.subject, [row], Setting(), only, of)
        return self._passes[key]

    def _unwatched(self, company: Company) -> str:
        """Where nothing differs while all are watched: in a fused path, which torch leaves when hooks look on."""
        for name, _ in self.subject.module.named_modules():
            if name and any(step.rows() for step in self.steps(company, only=name)):
                return str(name)
        return ""


def _reading(key: Key, seen: Sequence[Pass]) -> str | None:
    """How a part is meant, by all passes that have it."""
    return reading((one.records[key].value, one.geometry) for one in seen if key in one.records)


def sorted_by(geometry: Geometry, sign: int) -> Geometry:
    """The same rows by rising (1) or falling (-1) length."""
    return replace(geometry, lengths=tuple(sorted(geometry.lengths, key=lambda length: sign * length)))


def sorter(permuted: Sequence[str]) -> str:
    """The module that sorted: the first in which another one got its rows in wrong order; or the first of all."""
    for name in permuted:
        prefix = f"{name}." if name else ""
        if any(other != name and other.startswith(prefix) for other in permuted):
            return name
    return permuted[0]


def first_not_finite(subject: Subject, difference: Difference) -> str:
    """The first module that returned a NaN, or for a gradient that is NaN, the one through which it came."""
    company = difference.company
    records = trace(subject, company.rows, company.setting)
    for record in records:
        if bool(_tensor(record).isnan().any()):
            return record.module
    # a NaN that forward leaves out comes back in backward: it arose right behind the last module that has it
    gradients = observe(subject, company.rows, company.setting).gradients
    touched = {name.rpartition(".")[0] for name, grad in gradients.items() if bool(grad.isnan().any())}
    last = max((place for place, record in enumerate(records) if record.module in touched), default=-1)
    return records[last + 1].module if 0 <= last < len(records) - 1 else ""


def first_changed(subject: Subject, company: Company, other: Company) -> str:
    """The first module that says something else of a company after it has seen another one."""
    with unchanged(subject.module):
        first = {one.key: one for one in trace(subject, company.rows, company.setting, keep_state=True)}
        trace(subject, other.rows, other.setting, keep_state=True)
        again = trace(subject, company.rows, company.setting, keep_state=True)
    for record in again:
        if record.key in first and worst_difference(_tensor(record), _tensor(first[record.key])) > 0:
            return record.module
    return ""


def first_random(subject: Subject, company: Company) -> str:
    """The first module that says something else under another seed, though it was given the same."""
    first, second = _two_seeds(subject, company)
    changed = [record for key, record in first.items() if key in second and _differs(record, second[key])]
    return changed[0].module if changed else ""


def first_shared(subject: Subject, company: Company) -> str:
    """The first module that draws other numbers in each run, but the same for all rows of a company of copies."""
    return first_random(subject, company)


def _two_seeds(subject: Subject, company: Company) -> list[dict[Key, Record]]:
    runs = []
    for seed in (1, 2):
        with seeded(seed):
            runs.append({one.key: one for one in trace(subject, company.rows, company.setting)})
    return runs


def _differs(mine: Record, theirs: Record) -> bool:
    return worst_difference(_tensor(mine), _tensor(theirs)) > 0


def _tensor(record: Record) -> Tensor:
    part = record.value
    return part if isinstance(part, Tensor) else part.values if isinstance(part, Ragged) else part.data


def named(subject: Subject, module: str) -> str:
    """`encoder.forwards.0 (Recurrence)`; the whole is called by its class."""
    kind = type(subject.module.get_submodule(module)).__name__
    return f"{module} ({kind})" if module else kind


def _size(values: Tensor) -> float:
    finite = values.detach().double().nan_to_num(0.0, 0.0, 0.0).abs()
    return float(finite.max()) if finite.numel() else 0.0
