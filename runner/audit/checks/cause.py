"""The cause of a failed check, found by probes that repeat the failing batch and change one factor at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from runner.audit.checks import kinds
from runner.audit.checks.compare import Difference, SingleReference
from runner.audit.checks.variations import batch_specs
from runner.audit.tracing.alignment import worst_difference
from runner.audit.tracing.interventions import reads_padding
from runner.audit.tracing.observe import Fill, Observation, Setting, observe

_LOSS = "gradient of the loss by "
_GRADIENT = "gradient of "
Cause = tuple[str, str]  # the kind of a fault, and one sentence on how it was determined
# content of the padding -> the sentence of a finding if this content changes the result
FILLS: dict[Fill, str] = {
    "other": "The result changes with other values in the padding",
    "huge": "The result changes with 1e30 in the padding",
    "nan": "The result becomes NaN when the padding holds NaN: padding is multiplied by zero somewhere, not left out",
}
NAN_GRADIENT = "The gradient is 0 times the NaN of the padding: put zeros there before the weight is applied"


def cause(reference: SingleReference, difference: Difference, module: str | None, witnesses: Sequence[int]) -> Cause:
    """Determine the kind of a difference that arises at `module`, or in the loss (None).

    `witnesses` are examples of different lengths.
    """
    # The order of the probes matters: swapped rows and leaks also change with width, order and neighbours.
    probe = Probe(reference, difference)
    if (result := probe.swapped()) is not None:
        return result
    if module and probe.padded and reads_padding(reference.subject, witnesses, module, difference.allowed):
        return (kinds.VALUE_LEAK, "Its values at real tokens change with the values in the padding of its inputs.")
    probes = [probe.content, probe.width] if probe.padded else []
    for run_probe in (*probes, probe.neighbours, probe.order):
        if (result := run_probe()) is not None:
            return result
    if "loss" in difference.quantity:
        return (kinds.LOSS, difference.note or "The loss of the update differs from that of its examples.")
    return (kinds.NEIGHBOURS, "The result depends on the other examples of the batch.")


class Probe:
    """Repetitions of the failing batch, changed in one way; each method returns the cause that it detects, or None."""

    def __init__(self, reference: SingleReference, difference: Difference) -> None:
        self.reference, self.subject = reference, reference.subject
        self.batch, self.quantity, self.allowed = difference.batch, difference.quantity, difference.allowed
        lengths = {int(self.subject.lengths[row]) for row in self.batch.rows}
        is_even = len(lengths) == 1 and 0 not in lengths and bool(self.subject.is_even[list(self.batch.rows)].all())
        self.padded = self.subject.has_padding and (self.batch.setting.widen > 1 or not is_even)

    def swapped(self) -> Cause | None:
        """Test whether the first wrong row has the output of another row of the batch."""
        rows = self.batch.rows
        observation = observe(self.subject, rows, self.batch.setting)
        if self.quantity != "output" or observation.error is not None:
            return None
        for row, output in zip(rows, observation.outputs, strict=True):
            if self._is_output_of(row, output) or not output.numel():
                continue
            other = next((candidate for candidate in rows if self._is_output_of(candidate, output)), None)
            return None if other is None else (kinds.ORDER, f"Row {row} got the output of row {other}.")
        return None

    def _is_output_of(self, row: int, output: Tensor) -> bool:
        return worst_difference(output, self.reference.expected[row].outputs[0]) <= self.allowed

    def order(self) -> Cause | None:
        rows = self.batch.rows
        if len(set(rows)) < 2:
            return None
        setting = replace(self.batch.setting, fill="neutral")  # other fills would differ between the two runs
        if self._differs(rows, setting, tuple(reversed(rows)), setting):
            return (kinds.ORDER, "The result changes when the same rows come in reverse order.")
        return None

    def content(self) -> Cause | None:
        for rows in dict.fromkeys((self.batch.rows, *self._groups("mixed_lengths")[:2])):
            for fill, sentence in FILLS.items():
                for widen in (self.batch.setting.widen, 2):
                    neutral = Setting(widen)
                    if self._differs(rows, neutral, rows, replace(neutral, fill=fill)):
                        of_gradient = fill == "nan" and self.quantity.startswith(_GRADIENT)
                        return (kinds.VALUE_LEAK, f"{NAN_GRADIENT if of_gradient else sentence}.")
        return None

    def width(self) -> Cause | None:
        """Test wider padding, also of each example by itself."""
        for rows in (self.batch.rows, *((row,) for row in dict.fromkeys(self.batch.rows))):
            for widen in (2, 4):
                if self._differs(rows, Setting(), rows, Setting(widen)):
                    return (kinds.WIDTH, f"The result changes when the padding is {widen}x as wide as needed.")
        return None

    def neighbours(self) -> Cause | None:
        """Test batches of equal lengths, which hold no padding."""
        if self.quantity != "output":
            return None
        for rows in self._groups("neighbours"):
            observation = observe(self.subject, rows, Setting())
            if observation.error is None and not all(map(self._is_output_of, rows, observation.outputs)):
                return (kinds.NEIGHBOURS, "It differs in batches of equal lengths too, where nothing is padded.")
        return None

    def _differs(self, rows: Sequence[int], setting: Setting, others: Sequence[int], changed: Setting) -> bool:
        """Return True if the quantity differs between two runs of the same rows, compared row by row."""
        of_loss = self.quantity.startswith(_LOSS)
        first = observe(self.subject, rows, setting, loss=of_loss)
        second = observe(self.subject, others, changed, loss=of_loss)
        if (first.error is None) != (second.error is None):
            return True
        before, after = self._values_of(first), self._values_of(second)
        if before is None or after is None:
            return False
        if self.quantity in ("output", "prediction"):
            after = [after[others.index(row)] for row in rows]
        return any(worst_difference(a, b) > self.allowed for a, b in zip(before, after, strict=True))

    def _values_of(self, run: Observation) -> list[Tensor] | None:
        """Return the quantity in question, one tensor per row, or a single one; None where the run has none."""
        if run.error is not None:
            return None
        if self.quantity == "prediction":
            return run.predictions
        if self.quantity == "loss" or self.quantity.startswith("count"):
            return None if run.loss is None else [run.loss.total]
        if self.quantity.startswith(_LOSS):
            return [run.loss_gradients[self.quantity.removeprefix(_LOSS)]]
        if self.quantity.startswith(_GRADIENT):
            return [run.gradients[self.quantity.removeprefix(_GRADIENT)]]
        return run.outputs

    def _groups(self, check: str) -> list[tuple[int, ...]]:
        batches = batch_specs(self.subject.lengths, self.subject.is_even, self.subject.has_padding, 0)[check]
        return list(filter(None, (self.reference.comparable(batch.rows) for batch in batches)))
