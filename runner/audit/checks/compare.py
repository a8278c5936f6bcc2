"""The comparison of a batch with single-example runs of the same examples, and the size of their differences."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.audit.checks.tolerance import Tolerance, narrowest, operations, roundoff
from runner.audit.checks.variations import BatchSpec
from runner.audit.tracing.alignment import worst_difference
from runner.audit.tracing.observe import Observation, Setting, Subject, observe
from runner.common.errors import missing_kernel


@dataclass(frozen=True)
class Difference:
    """The result of comparing one quantity."""

    quantity: str  # `output`, `prediction`, `gradient of NAME`, `loss`, `gradient of the loss by NAME`, `error`
    rows: tuple[int, ...]  # examples whose difference exceeds the allowed one
    size: float  # largest |difference|
    allowed: float  # largest |difference| that rounding explains
    batch: BatchSpec
    note: str = ""  # further information for the message
    is_single: bool = False  # the single-example run itself failed
    not_run: str = ""  # the error, if it says that this machine lacks a kernel that the model needs

    @property
    def share(self) -> float:
        """The size divided by the allowed size; above 1 rounding does not explain the difference."""
        return self.size / self.allowed if self.allowed > 0 else (0.0 if self.size == 0 else torch.inf)


class SingleReference:
    """The reference: a single-example run of each example, by a module in the arithmetic (`dtype`) of interest.

    `exact` is the float64 reference, where this one is coarser; the tolerance then includes the errors measured here.
    """

    def __init__(self, subject: Subject, dtype: torch.dtype, exact: SingleReference | None = None) -> None:
        self.subject = subject
        self.runs = [observe(subject, [row], Setting(), loss=True) for row in range(len(subject.lengths))]
        # the examples whose single-example run ended without an error or NaN
        self.good = [row for row, run in enumerate(self.runs) if run.error is None and not _bad(run)]
        self.coarse, self.expected, self.measured, unit = exact is not None, self.runs, 0.0, roundoff(dtype)
        if exact is None:
            # a float64 module may compute in float32 inside (a norm, a softmax): the tolerance is that of the narrowest
            inner = narrowest(subject, int(subject.lengths.argmax()))
            unit = unit if inner == dtype else max(unit, float(torch.finfo(inner).eps) / 2)
        else:
            self.good, self.expected = [row for row in self.good if row in exact.good], exact.runs
            errors = [worst_difference(self.runs[row].outputs[0], exact.runs[row].outputs[0]) for row in self.good]
            self.measured = max((error for error in errors if error < torch.inf), default=0.0)
        self.tolerance = Tolerance(unit, operations(subject.module, int(subject.lengths.max(initial=1))))
        self.scale = max((largest_magnitude(self.expected[row].outputs) for row in self.good), default=1.0)

    def of(self, subject: Subject) -> SingleReference:
        """Return the same runs as the reference for another layout of the same examples."""
        other = copy.copy(self)
        other.subject = subject
        return other

    def comparable(self, rows: Sequence[int]) -> tuple[int, ...]:
        return tuple(row for row in rows if row in self.good)

    def allowed(self) -> float:
        return self.tolerance.of(self.scale, self.measured)

    def allowed_prediction(self) -> float:
        """Return the allowed difference of predictions: 0 for ids, the rounding error for numbers."""
        predictions = [value for row in self.good for value in self.expected[row].predictions or ()]
        if not any(value.is_floating_point() for value in predictions):
            return 0.0
        return self.tolerance.of(max(self.scale, largest_magnitude(predictions)))


def compare(
    reference: SingleReference, batch: BatchSpec, observation: Observation, base: Observation | None = None
) -> Iterator[Difference]:
    """Compare outputs, predictions and gradients of a batch with single-example runs, or with the run `base`."""
    rows = batch.rows
    if base is not None and base.error is not None:
        return  # another check reports this error
    if observation.error is not None:
        yield _error(batch, observation.error)
        return
    if base is None:
        expected = [(reference.expected[row], 0) for row in rows]
        gradients = [run.gradients for run, _ in expected]
    else:
        assert batch.against is not None
        expected = [(base, batch.against.rows.index(row)) for row in rows]
        gradients = [base.gradients]
    outputs = [run.outputs[place] for run, place in expected]
    yield _by_row("output", batch, observation.outputs, outputs, reference.allowed())
    # In coarse arithmetic ties are broken either way, and gradients test the logic, which float64 has tested already.
    if reference.coarse:
        return
    if observation.predictions is not None:
        predictions = [run.predictions[place] for run, place in expected if run.predictions]
        yield _by_row("prediction", batch, observation.predictions, predictions, reference.allowed_prediction())
    yield from _gradients(reference, batch, observation.gradients, gradients, "gradient of")


def compare_loss(reference: SingleReference, batch: BatchSpec, observation: Observation) -> Iterator[Difference]:
    """Compare loss and gradients of a batch with the sums over its examples (for a plain mean: with their mean)."""
    rows = batch.rows
    if observation.error is not None:
        yield _error(batch, observation.error)
        return
    if observation.loss is None:
        return
    runs = [reference.expected[row] for row in rows]
    losses = [run.loss for run in runs if run.loss is not None]
    is_mean = observation.loss.count == 0
    share = 1.0 / len(rows) if is_mean else 1.0
    total = sum(float(loss.total) for loss in losses) * share
    scale = max((abs(float(loss.total)) for loss in losses), default=1.0) * max(1.0, share * len(rows))
    allowed = reference.tolerance.of(scale, terms=sum(reference.subject.lengths[list(rows)]))
    size = abs(float(observation.loss.total) - total)
    yield Difference("loss", rows, size if size == size else torch.inf, allowed, batch)
    count = sum(loss.count for loss in losses)
    if not is_mean and observation.loss.count != count:
        note = f"The batch counts {observation.loss.count} targets, its examples {count}."
        yield Difference("count of the loss", rows, torch.inf, 0.0, batch, note)
    expected = [{name: grad * share for name, grad in run.loss_gradients.items()} for run in runs]
    yield from _gradients(reference, batch, observation.loss_gradients, expected, "gradient of the loss by")


def not_finite(reference: SingleReference) -> Iterator[Difference]:
    """Yield the examples whose single-example run ends in an error, or has NaN in its output or gradients."""
    for row, run in enumerate(reference.runs):
        batch, length = BatchSpec((row,)), int(reference.subject.lengths[row])
        where = f"in a batch of one example, of {length} {'token' if length == 1 else 'tokens'}"
        if run.error is not None:
            yield _error(batch, run.error, f"{where}: ", is_single=True)
        elif quantity := _bad(run):
            yield Difference(quantity, (row,), torch.inf, 0.0, batch, f"{where}.", is_single=True)


def first_line(error: Exception) -> str:
    """Return the message of an error in one line of at most 160 characters."""
    return " ".join((str(error) or "no message").split())[:160].rstrip(".")


def _error(batch: BatchSpec, error: Exception, where: str = "", is_single: bool = False) -> Difference:
    note = f"{where}{type(error).__name__}: {first_line(error)}."
    return Difference("error", batch.rows, torch.inf, 0.0, batch, note, is_single, missing_kernel(error))


def _by_row(
    quantity: str, batch: BatchSpec, values: Sequence[Tensor], expected: Sequence[Tensor], allowed: float
) -> Difference:
    sizes = [worst_difference(a, b) for a, b in zip(values, expected, strict=True)]
    rows = tuple(row for row, size in zip(batch.rows, sizes, strict=True) if size > allowed)
    return Difference(quantity, rows, max(sizes, default=0.0), allowed, batch)


def _gradients(
    reference: SingleReference,
    batch: BatchSpec,
    gradients: dict[str, Tensor],
    expected: Sequence[dict[str, Tensor]],
    what: str,
) -> Iterator[Difference]:
    """Compare the gradient of every parameter with the sum of the expected ones.

    The last parameter comes first: layers after a leak have right gradients. One scale serves all parameters, since
    some gradients are zero except for rounding (a bias before a softmax).
    """
    zero = {name: torch.zeros_like(grad) for name, grad in gradients.items()}
    totals = {name: sum((part[name] for part in expected), zero[name]) for name in gradients}
    sizes = [sum((part[name].abs() for part in expected), zero[name]) for name in gradients]
    scale = max((float(size.max()) for size in sizes if size.numel()), default=0.0)
    terms = int(reference.subject.lengths[list(batch.rows)].sum())
    allowed = reference.tolerance.of(scale, terms=terms)
    for name, grad in reversed(gradients.items()):
        yield Difference(f"{what} {name}", batch.rows, worst_difference(grad, totals[name]), allowed, batch)


def _bad(run: Observation) -> str:
    """Return the first quantity of a run that holds NaN (infinite scores may be intended), or an empty string."""
    named = {"output": run.outputs, **{f"gradient of {name}": [grad] for name, grad in run.gradients.items()}}
    for quantity, tensors in named.items():
        if any(bool(tensor.isnan().any()) for tensor in tensors):
            return quantity
    return ""


def largest_magnitude(outputs: Sequence[Tensor]) -> float:
    """Return the largest finite |number| of some tensors, 0 if there is none."""
    finite = [output.detach().double().nan_to_num(0.0, 0.0, 0.0).abs() for output in outputs]
    return max((float(output.max()) for output in finite if output.numel()), default=0.0)
