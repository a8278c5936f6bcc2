"""Why a check failed: probes that change one factor at a time, the failing company otherwise as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from runner.audit.checks import verdict as kinds
from runner.audit.checks.compare import Alone, Difference
from runner.audit.checks.variations import Company, companies
from runner.audit.tracing.alignment import worst_difference
from runner.audit.tracing.interventions import reads_padding
from runner.audit.tracing.observe import Fill, Observation, Setting, observe
from runner.common.arrays import IntArray

_OVERFLOW = ("overflow",)
_LOSS = "gradient of the loss by "
_GRADIENT = "gradient of "
# what stands in padding besides what the layout puts there, and what it tells
FILLS: dict[Fill, str] = {
    "other": "The answer changes with other content in the padding",
    "huge": "The answer changes with 1e30 in the padding",
    "nan": "The answer is lost when the padding holds NaN: it is multiplied by zero somewhere, not left out",
}
NAN_GRADIENT = "The gradient is 0 times the NaN that came in from the padding: put zeros there before the weight"


@dataclass(frozen=True)
class Cause:
    kind: str
    detail: str


def failure(difference: Difference) -> Cause:
    """The kind of an error."""
    overflow = any(word in difference.note for word in _OVERFLOW)
    return Cause(kinds.OVERFLOW if overflow else kinds.ERROR, difference.note)


def cause(alone: Alone, difference: Difference, module: str | None, witnesses: Sequence[int]) -> Cause:
    """The kind of a difference, and one sentence on how that was seen.

    Args:
        module: at which it arises, or None for the loss.
        witnesses: examples of different lengths.
    """
    probe = Probe(alone, difference)
    if (found := probe.swapped()) is not None:
        return found
    if module and probe.padded and reads_padding(alone.subject, witnesses, module, difference.allowed):
        detail = "Its values at real tokens change with what stands in the padding of its inputs."
        return Cause(kinds.VALUE_LEAK, detail)
    tests: list[Callable[[], Cause | None]] = [probe.content, probe.width] if probe.padded else []
    for test in (*tests, probe.neighbours, probe.order):
        if (found := test()) is not None:
            return found
    if "loss" in difference.quantity:
        return Cause(kinds.LOSS, difference.note or "The update's loss is not that of its examples.")
    return Cause(kinds.NEIGHBOURS, "The answer depends on who stands beside the example.")


class Probe:
    """Runs of the failing company, changed in one way; each method tells a cause or None."""

    def __init__(self, alone: Alone, difference: Difference) -> None:
        self.alone, self.subject = alone, alone.subject
        self.company, self.quantity, self.allowed = difference.company, difference.quantity, difference.allowed

    @property
    def padded(self) -> bool:
        """Whether anything is padded in the failing company."""
        lengths = {int(self.subject.lengths[row]) for row in self.company.rows}
        return self.subject.has_padding and (len(lengths) > 1 or self.company.setting.widen > 1 or 0 in lengths)

    def swapped(self) -> Cause | None:
        """Rows that got each other's answers."""
        rows = self.company.rows
        seen = observe(self.subject, rows, self.company.setting)
        if self.quantity != "output" or seen.error is not None:
            return None
        for row, mine in zip(rows, seen.outputs, strict=True):
            theirs = self.alone.truth[row].outputs[0]
            if worst_difference(mine, theirs) <= self.allowed or not mine.numel():
                continue
            other = next(
                (o for o in rows if worst_difference(mine, self.alone.truth[o].outputs[0]) <= self.allowed), None
            )
            if other is None:
                return None
            return Cause(kinds.ORDER, f"Row {row} got the answer of row {other}.")
        return None

    def order(self) -> Cause | None:
        rows = self.company.rows
        if len(set(rows)) < 2:
            return None
        turned = tuple(reversed(rows))
        setting = replace(self.company.setting, fill="neutral")  # other content would be drawn anew
        if self._differs(rows, setting, turned, setting):
            return Cause(kinds.ORDER, "The answer changes when the same rows stand in reverse order.")
        return None

    def content(self) -> Cause | None:
        if not self.subject.has_padding:
            return None
        setting = replace(self.company.setting, fill="neutral")
        for rows in dict.fromkeys((self.company.rows, *self._uneven())):
            for fill, sentence in FILLS.items():
                for widen in (setting.widen, 2):
                    here = replace(setting, widen=widen)
                    if self._differs(rows, here, rows, replace(here, fill=fill)):
                        of_gradient = fill == "nan" and self.quantity.startswith(_GRADIENT)
                        return Cause(kinds.VALUE_LEAK, f"{NAN_GRADIENT if of_gradient else sentence}.")
        return None

    def width(self) -> Cause | None:
        if not self.subject.has_padding:
            return None
        singles = [(row,) for row in dict.fromkeys(self.company.rows)]
        for rows in (self.company.rows, *singles):
            for widen in (2, 4):
                setting = Setting(widen=widen)
                if self._differs(rows, Setting(), rows, setting):
                    return Cause(kinds.WIDTH, f"The answer changes when the padding is {widen}x as wide as needed.")
        return None

    def neighbours(self) -> Cause | None:
        if self.quantity != "output":
            return None
        for company in self._groups("neighbours"):
            seen = observe(self.subject, company.rows, company.setting)
            if seen.error is not None:
                continue
            theirs = [self.alone.truth[row].outputs[0] for row in company.rows]
            pairs = zip(seen.outputs, theirs, strict=True)
            if any(worst_difference(mine, other) > self.allowed for mine, other in pairs):
                detail = "It differs beside rows of equal length too, where nothing is padded."
                return Cause(kinds.NEIGHBOURS, detail)
        return None

    def _differs(self, rows: Sequence[int], setting: Setting, others: Sequence[int], changed: Setting) -> bool:
        """Whether the quantity differs between two runs of the same rows, row by row."""
        first = observe(self.subject, rows, setting, loss=self.quantity.startswith(_LOSS))
        second = observe(self.subject, others, changed, loss=self.quantity.startswith(_LOSS))
        if (first.error is None) != (second.error is None):
            return True
        mine, theirs = self._of(first), self._of(second)
        if mine is None or theirs is None:
            return False
        if self.quantity in ("output", "prediction"):
            theirs = [theirs[others.index(row)] for row in rows]
        return any(worst_difference(a, b) > self.allowed for a, b in zip(mine, theirs, strict=True))

    def _of(self, seen: Observation) -> list[Tensor] | None:
        """The quantity in question."""
        if seen.error is not None:
            return None
        if self.quantity == "prediction":
            return seen.predictions
        if self.quantity == "loss" or self.quantity.startswith("count"):
            return None if seen.loss is None else [seen.loss.total]
        if self.quantity.startswith(_LOSS):
            return [seen.loss_gradients[self.quantity.removeprefix(_LOSS)]]
        if self.quantity.startswith(_GRADIENT):
            return [seen.gradients[self.quantity.removeprefix(_GRADIENT)]]
        return seen.outputs

    def _uneven(self) -> list[tuple[int, ...]]:
        return [company.rows for company in self._groups("company")[:2]]

    def _groups(self, check: str) -> list[Company]:
        lengths: IntArray = self.subject.lengths
        made = companies(lengths, self.subject.has_padding, seed=0)[check]
        good = [replace(one, rows=self.alone.comparable(one.rows)) for one in made]
        return [one for one in good if one.rows]
