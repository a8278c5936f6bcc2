"""Examples together against the same examples alone: what differs, by how much, beside what rounding explains."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.audit.checks.tolerance import Tolerance, operations, roundoff
from runner.audit.checks.variations import Company
from runner.audit.tracing.alignment import worst_difference
from runner.audit.tracing.observe import Observation, Setting, Subject, observe
from runner.audit.tracing.precision import narrowest
from runner.profiling.kernels import missing_kernel


@dataclass(frozen=True)
class Difference:
    """A quantity that was compared.

    Attributes:
        quantity: `output`, `prediction`, `gradient of NAME`, `loss`, `gradient of the loss by NAME`, `error`.
        rows: examples in which it lies beyond what is allowed.
        size, allowed: largest |difference| and its limit.
        company: the run.
        not_run: the error, where it says that this machine has no kernel for what the model computes.
    """

    quantity: str
    rows: tuple[int, ...]
    size: float
    allowed: float
    company: Company
    note: str = ""
    not_run: str = ""

    @property
    def place(self) -> str:
        """Where it arises if in no module."""
        return "decode" if self.quantity == "prediction" else "loss"

    @property
    def share(self) -> float:
        """Of what is allowed; above 1 it is no rounding."""
        return self.size / self.allowed if self.allowed > 0 else (0.0 if self.size == 0 else torch.inf)


class Alone:
    """Each example by itself: the reference.

    Args:
        subject: whose module lies in the arithmetic and mode of interest.
        dtype: of that arithmetic.
        exact: the float64 reference, where this one is coarser: tolerances then come from the errors seen here.
    """

    def __init__(self, subject: Subject, dtype: torch.dtype, exact: Alone | None = None) -> None:
        self.subject = subject
        self.runs = [observe(subject, [row], Setting(), loss=True) for row in range(len(subject.lengths))]
        self._good = {row for row, run in enumerate(self.runs) if run.error is None and not _bad(run)}
        if exact is not None:
            self._good &= exact._good
        longest = int(subject.lengths.max(initial=1))
        self.narrowest = narrowest(subject, int(subject.lengths.argmax())) if exact is None else dtype
        unit = max(roundoff(dtype), 0.0 if self.narrowest == dtype else float(torch.finfo(self.narrowest).eps) / 2)
        self.tolerance = Tolerance(unit, operations(subject.module, longest))
        self.truth = self.runs if exact is None else exact.runs
        self.coarse = exact is not None
        self.measured = 0.0
        outputs = [(mine, true) for row, mine in self.finite() for true in [self.truth[row]]]
        if exact is not None:
            errors = [_worst(mine.outputs, true.outputs) for mine, true in outputs]
            self.measured = max((one for one in errors if one < torch.inf), default=0.0)
        self.scale = max((_size(true.outputs) for _, true in outputs), default=1.0)

    def of(self, subject: Subject) -> Alone:
        """The same answers as the reference for another way of laying the same examples out."""
        other = copy.copy(self)
        other.subject = subject
        return other

    def finite(self) -> Iterator[tuple[int, Observation]]:
        """The examples that have an answer, alone, in numbers."""
        return ((row, self.runs[row]) for row in sorted(self._good))

    def comparable(self, rows: Sequence[int]) -> tuple[int, ...]:
        return tuple(row for row in rows if row in self._good)

    def allowed(self) -> float:
        return self.tolerance.of(self.scale, self.measured)


def compare(alone: Alone, company: Company, seen: Observation, base: Observation | None = None) -> Iterator[Difference]:
    """Outputs, predictions and gradients of a run against each example alone, or against the run `base`."""
    rows = company.rows
    if base is not None and base.error is not None:
        return  # another check has told it
    if seen.error is not None:
        yield _error(company, seen.error)
        return
    expected = _alone(alone, rows) if base is None else _of_run(base, company)
    yield _by_row("output", company, seen.outputs, expected.outputs, alone.allowed())
    if alone.coarse:  # ties fall either way there, and gradients are a matter of logic
        return
    if seen.predictions is not None:
        yield _by_row("prediction", company, seen.predictions, expected.predictions or [], 0.0)
    yield from _gradients(alone, company, seen.gradients, expected.gradients, "gradient of")


def compare_loss(alone: Alone, company: Company, seen: Observation) -> Iterator[Difference]:
    """Loss and gradients of a run against the sums over its examples (of a plain mean: against their mean)."""
    rows = company.rows
    if seen.error is not None:
        yield _error(company, seen.error)
        return
    if seen.loss is None:
        return
    runs = [alone.truth[row] for row in rows]
    losses = [run.loss for run in runs if run.loss is not None]
    is_mean = seen.loss.count == 0
    share = 1.0 / len(rows) if is_mean else 1.0
    total = sum(float(one.total) for one in losses) * share
    scale = max((abs(float(one.total)) for one in losses), default=1.0) * max(1.0, share * len(rows))
    allowed = alone.tolerance.of(scale, terms=sum(alone.subject.lengths[list(rows)]))
    size = abs(float(seen.loss.total) - total)
    yield Difference("loss", rows, size if size == size else torch.inf, allowed, company)
    if not is_mean and seen.loss.count != sum(one.count for one in losses):
        counts = f"{seen.loss.count} answers are counted, alone {sum(one.count for one in losses)}."
        yield Difference("count of the loss", rows, torch.inf, 0.0, company, counts)
    theirs = [{name: grad * share for name, grad in run.loss_gradients.items()} for run in runs]
    yield from _gradients(alone, company, seen.loss_gradients, theirs, "gradient of the loss by")


def not_finite(alone: Alone) -> Iterator[Difference]:
    """Examples that have no answer, or no gradient, in numbers, even alone."""
    for row, run in enumerate(alone.runs):
        company = Company((row,))
        if run.error is not None:
            yield _error(company, run.error, f"alone, with {alone.subject.lengths[row]} tokens: ")
        elif what := _bad(run):
            yield Difference(what, (row,), torch.inf, 0.0, company, f"alone, with {alone.subject.lengths[row]} tokens.")


def first_line(error: Exception) -> str:
    return " ".join((str(error) or "no message").split())[:160].rstrip(".")


def _error(company: Company, error: Exception, where: str = "") -> Difference:
    note = f"{where}{type(error).__name__}: {first_line(error)}."
    return Difference("error", company.rows, torch.inf, 0.0, company, note, missing_kernel(error))


@dataclass(frozen=True)
class _Expected:
    """What a run should give: by row, and gradients that add up to its own."""

    outputs: list[Tensor]
    predictions: list[Tensor] | None
    gradients: list[dict[str, Tensor]]


def _alone(alone: Alone, rows: Sequence[int]) -> _Expected:
    runs = [alone.truth[row] for row in rows]
    predictions = [one for run in runs for one in run.predictions or []]
    return _Expected([run.outputs[0] for run in runs], predictions, [run.gradients for run in runs])


def _of_run(base: Observation, company: Company) -> _Expected:
    assert company.against is not None
    places = [company.against.rows.index(row) for row in company.rows]
    predictions = base.predictions and [base.predictions[place] for place in places]
    return _Expected([base.outputs[place] for place in places], predictions, [base.gradients])


def _by_row(
    quantity: str, company: Company, mine: Sequence[Tensor], theirs: Sequence[Tensor], allowed: float
) -> Difference:
    sizes = [worst_difference(a, b) for a, b in zip(mine, theirs, strict=True)]
    rows = tuple(row for row, size in zip(company.rows, sizes, strict=True) if size > allowed)
    return Difference(quantity, rows, max(sizes, default=0.0), allowed, company)


def _gradients(
    alone: Alone, company: Company, mine: dict[str, Tensor], theirs: Sequence[dict[str, Tensor]], what: str
) -> Iterator[Difference]:
    """Of every parameter, the last first: what stands behind a leak is right. One scale for all: some are zero but for
    rounding (a bias before a softmax).
    """
    zero = {name: torch.zeros_like(one) for name, one in mine.items()}
    totals = {name: sum((one[name] for one in theirs), zero[name]) for name in mine}
    sizes = [sum((one[name].abs() for one in theirs), zero[name]) for name in mine]
    scale = max((float(one.max()) for one in sizes if one.numel()), default=0.0)
    terms = int(alone.subject.lengths[list(company.rows)].sum())
    allowed = alone.tolerance.of(scale, terms=terms)
    for name, grad in reversed(mine.items()):
        yield Difference(f"{what} {name}", company.rows, worst_difference(grad, totals[name]), allowed, company)


def _bad(run: Observation) -> str:
    """Which quantity of a run holds NaN (an infinite score may be meant), or nothing."""
    named = {"output": run.outputs, **{f"gradient of {name}": [grad] for name, grad in run.gradients.items()}}
    for what, tensors in named.items():
        if any(bool(one.isnan().any()) for one in tensors):
            return what
    return ""


def _worst(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    return max((worst_difference(a, b) for a, b in zip(mine, theirs, strict=True)), default=0.0)


def _size(outputs: Sequence[Tensor]) -> float:
    finite = [one.detach().double().nan_to_num(0.0, 0.0, 0.0).abs() for one in outputs]
    return max((float(one.max()) for one in finite if one.numel()), default=0.0)
