"""All checks of one subject in one mode: their verdicts, and a heat map of the differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Literal

import torch

from runner.audit.checks import kinds
from runner.audit.checks.cause import cause
from runner.audit.checks.compare import Difference, SingleReference, compare, compare_loss, first_line, not_finite
from runner.audit.checks.locate import Locator, TracedPart, first_changed, first_not_finite, first_random, module_label
from runner.audit.checks.metric import NO_OUTPUT
from runner.audit.checks.variations import BatchSpec, batch_specs
from runner.audit.checks.verdict import Finding, HeatMap, Verdict
from runner.audit.tracing.alignment import differences, worst_difference
from runner.audit.tracing.interventions import is_used
from runner.audit.tracing.module_state import Mode, seeded, unchanged
from runner.audit.tracing.observe import Observation, Setting, Subject, observe
from runner.common.errors import missing_kernel

Arithmetic = Literal["float64", "float32", "bf16", "fp16"]
NO_EQUAL = "no two examples have the same length"
NO_PADDING = "this layout holds no padding"
COPIES = 8  # copies of an example in one batch: fewer may drop the same few values by chance


@dataclass
class Auditor:
    """Runs the checks of one subject in one mode; all of them share the reference."""

    subject: Subject
    mode: Mode
    reference: SingleReference
    seed: int  # seed of the random choice of examples
    nan_gradients: bool = True  # compare gradients too where the padding holds NaN
    explained: bool = True  # failed verdicts say where and why, which takes many runs
    failed: dict[str, BatchSpec] = field(default_factory=dict)  # the batch on which each failed check failed

    @cached_property
    def batches(self) -> dict[str, list[BatchSpec]]:
        return batch_specs(self.subject.lengths, self.subject.is_even, self.subject.has_padding, self.seed)

    def verdicts(self) -> Iterator[Verdict]:
        """Yield the verdicts of all checks that compare batches, and of the loss.

        If outputs are random, no further check means anything, and the others are not run.
        """
        repeated = self._check_random() or self._check_repeat()
        yield repeated
        if repeated.finding is not None and repeated.finding.kind == kinds.RANDOM:
            for check in self.batches:
                yield Verdict(self.subject.name, check, self.mode, None, reason="its outputs are random")
            return
        bad = list(not_finite(self.reference))
        for check, runs in self.batches.items():
            extra = bad if check == "extremes" else []
            yield self.verdict(check, runs, extra)
        if any(run.loss is not None for run in self.reference.runs):
            yield self.verdict("loss", self.batches["mixed_lengths"])

    def over(self, check: str, others: Sequence[str], extra: Sequence[Difference] = ()) -> Verdict:
        """Return the verdict of a check that runs the batches of other checks; `extra` as in `verdict`."""
        runs = [run for other in others for run in self.batches[other]]
        return self.verdict(check, runs, extra)

    def _differences(self, runs: Iterable[BatchSpec]) -> Iterator[Difference]:
        for batch in map(self._comparable, runs):
            if not batch.rows:
                continue
            base = None if batch.against is None else observe(self.subject, batch.against.rows, batch.against.setting)
            observation = observe(self.subject, batch.rows, batch.setting)
            if batch.setting.fill == "nan" and not self.nan_gradients:
                observation.gradients = {}
            yield from compare(self.reference, batch, observation, base)

    def _comparable(self, batch: BatchSpec) -> BatchSpec:
        """Return the batch without examples whose single-example run has no output; `extremes` reports those."""
        rows = self.reference.comparable(batch.rows)
        against = None if batch.against is None else self._comparable(batch.against)
        return replace(batch, rows=rows, against=against)

    def _loss_differences(self, runs: Iterable[BatchSpec]) -> Iterator[Difference]:
        for run in runs:
            if rows := self.reference.comparable(run.rows):
                observation = observe(self.subject, rows, Setting(), loss=True)
                yield from compare_loss(self.reference, BatchSpec(rows), observation)

    def verdict(self, check: str, runs: Sequence[BatchSpec], extra: Sequence[Difference] = ()) -> Verdict:
        """Return the verdict on a check from its differences, `extra` first: the first one beyond rounding decides.

        Differences are computed as they are read, so that a failed check stops early. Without batches, `runs`, it does
        not apply.
        """
        if not runs and not extra:
            reason = NO_EQUAL if check == "neighbours" else NO_PADDING
            return Verdict(self.subject.name, check, self.mode, None, reason=reason)
        worst, compared = 0.0, False
        differences = self._loss_differences(runs) if check == "loss" else self._differences(runs)
        for difference in chain(extra, differences):
            worst, compared = max(worst, difference.share), True
            if difference.not_run:
                return self._not_run(check, difference.not_run)
            if difference.share > 1.0:
                self.failed[check] = difference.batch
                finding = self.finding(difference) if self.explained else None
                return Verdict(self.subject.name, check, self.mode, False, difference.share, finding)
        return Verdict(self.subject.name, check, self.mode, True, worst) if compared else self._nothing_compared(check)

    def _nothing_compared(self, check: str) -> Verdict:
        """Return the verdict if no single-example run has an output; `extremes` gives the reason."""
        errors = [run.error for run in self.reference.runs if run.error is not None]
        if missing := next(filter(None, map(missing_kernel, errors)), ""):
            return self._not_run(check, missing)
        return Verdict(self.subject.name, check, self.mode, None, reason=NO_OUTPUT)

    def _not_run(self, check: str, error: str) -> Verdict:
        return Verdict(self.subject.name, check, self.mode, None, reason=f"not run here: {error}", not_run=True)

    def finding(self, difference: Difference) -> Finding:
        """Return place and cause of a difference, found by further runs."""
        module: str | None
        if difference.quantity == "error":
            module = observe(self.subject, difference.batch.rows, difference.batch.setting).failed_in
            kind = kinds.OVERFLOW if "overflow" in difference.note else kinds.ERROR
            detail = difference.note
        elif difference.is_single:
            module = first_not_finite(self.subject, difference)
            kind = kinds.OVERFLOW if self.reference.coarse else kinds.NOT_FINITE  # its float64 run has an output
            detail = f"{difference.quantity} is NaN {difference.note}"
        else:
            locator = Locator(self.reference)
            module = locator.module_of(difference)
            kind, detail = cause(self.reference, difference, module, locator.witnesses())
        return self._finding_at(difference, module, kind, detail)

    def _finding_at(self, difference: Difference, module: str | None, kind: str, detail: str) -> Finding:
        place = "decode" if difference.quantity == "prediction" else "loss"  # if it arises in no module
        name = place if module is None else module_label(self.subject, module)
        return Finding(name, kind, difference.quantity, difference.rows, difference.size, difference.allowed, detail)

    def _check_repeat(self) -> Verdict:
        """Compare the same batch on a fresh module and on one that has just processed other rows."""
        if not (rows := self.reference.good):
            return self._nothing_compared("repeat")
        first, second = BatchSpec((rows[0], rows[-1])), BatchSpec((rows[-1], rows[len(rows) // 2]))
        worst = 0.0
        # Both orders are tried: state that the module keeps from its first batch only would hide a change.
        for batch, between in ((first, second), (second, first)):
            fresh = observe(self.subject, batch.rows, batch.setting)
            with unchanged(self.subject.module):
                for earlier in (batch, between) if batch is first else (between,):
                    observe(self.subject, earlier.rows, earlier.setting, keep_state=True)
                again = observe(self.subject, batch.rows, batch.setting, keep_state=True)
            difference = self._change(batch, fresh, again)
            if again.error is not None or difference.share > 1.0:
                error = f": {first_line(again.error)}." if again.error is not None else "."
                detail = f"The same rows get another output after a batch of other rows{error}"
                module = first_changed(self.subject, batch, between)
                finding = self._finding_at(difference, module, kinds.STATE, detail)
                return Verdict(self.subject.name, "repeat", self.mode, False, max(difference.share, 2.0), finding)
            worst = max(worst, difference.share)
        return Verdict(self.subject.name, "repeat", self.mode, True, worst)

    def _change(self, batch: BatchSpec, first: Observation, second: Observation) -> Difference:
        size = max(map(worst_difference, first.outputs, second.outputs), default=0.0)
        return Difference("output", batch.rows, size, self.reference.allowed(), batch)

    def _check_random(self) -> Verdict | None:
        """Return a failed verdict if outputs depend on the random seed, else None."""
        batch = BatchSpec(tuple(self.reference.good[:2]))
        if not batch.rows:
            return None
        first, second = (observe_seeded(self.subject, batch, seed) for seed in (1, 2))
        difference = self._change(batch, first, second)
        if difference.share <= 1.0 or first.error is not None or second.error is not None:
            return None
        detail = "The same batch gets another output under another seed."
        finding = self._finding_at(difference, first_random(self.subject, batch), kinds.RANDOM, detail)
        return Verdict(self.subject.name, "repeat", self.mode, False, difference.share, finding)

    def heat(self, tokens: Callable[[int], Sequence[str]]) -> HeatMap:
        """Return the differences of an example, module by module, in the batch that failed first or that of all rows.

        `tokens` maps the number of an example to its tokens.
        """
        whole = next((name, runs[-1]) for name in ("huge", "mixed_lengths") if (runs := self.batches[name]))
        check, batch = next(iter(self.failed.items()), whole)
        batch = self._comparable(batch)
        # Values that differ but are not used, such as the state of an RNN after its padding, are left out.
        steps = Locator(self.reference).steps(batch)
        steps = [s for s in steps if not s.differs or is_used(self.subject, batch.rows, batch.setting, s.record)]
        row = _hottest(steps, {row: len(tokens(row)) for row in batch.rows})
        steps = [step for step in steps if row in step.members]
        shares = [_by_position(step, row, int(self.subject.lengths[row])) for step in steps]
        names = [module_label(self.subject, step.record.module) for step in steps]
        return HeatMap(self.subject.name, check, self.mode, row, names, list(tokens(row)), shares)


def arithmetic_verdict(
    subject: Subject, reference: SingleReference, check: str, mode: Mode, seed: int, explained: bool = True
) -> Verdict:
    """Compare batches in coarser arithmetic with float64; the tolerance is the error of the single-example runs.

    The subject is cast to the arithmetic; `check` is the name of this arithmetic, in which the runs of
    `reference` were made.
    """
    coarse = Auditor(subject, mode, reference, seed, explained=explained)
    return coarse.over(check, ("mixed_lengths", "extremes"), list(not_finite(reference)))


def dropout_verdict(subject: Subject, row: int) -> Verdict:
    """Check that copies of one example in one batch, with dropout on, draw different masks."""
    batch = BatchSpec((row,) * COPIES)
    first, second = (observe_seeded(subject, batch, seed) for seed in (1, 2))
    if first.error is not None or all(map(torch.equal, first.outputs, second.outputs)):
        return Verdict(subject.name, "dropout", "train", None, reason="no dropout is on")
    if any(not torch.equal(output, first.outputs[0]) for output in first.outputs[1:]):
        return Verdict(subject.name, "dropout", "train", True)
    detail = "All copies of an example in one batch drop the same values, and other values in the next run."
    module = module_label(subject, first_random(subject, batch))
    finding = Finding(module, kinds.SHARED_DROPOUT, "output", batch.rows, 0.0, 0.0, detail)
    return Verdict(subject.name, "dropout", "train", False, torch.inf, finding)


def observe_seeded(subject: Subject, batch: BatchSpec, seed: int) -> Observation:
    with seeded(seed):
        return observe(subject, batch.rows, batch.setting)


def _hottest(steps: Sequence[TracedPart], lengths: Mapping[int, int]) -> int:
    """Return the example whose last step differs most; the longest, if several differ equally."""
    sizes = dict.fromkeys(lengths, 0.0)
    for step in steps:  # later steps overwrite earlier ones
        for row, value, expected in zip(step.members, step.batched, step.single, strict=True):
            size = worst_difference(value, expected)
            sizes[row] = size if size > step.allowed else 0.0
    return max(sizes, key=lambda row: (sizes[row], lengths[row]))


def _by_position(step: TracedPart, row: int, length: int) -> list[float]:
    """Return (length,) differences divided by the allowed one, or a single number for values per row."""
    place = step.members.index(row)
    shares = differences(step.batched[place], step.single[place]) / max(step.allowed, 1e-300)
    if shares.dim() and len(shares) == length and length > 0:
        return [float(share) for share in shares.reshape(length, -1).amax(dim=1)] if shares.numel() else [0.0] * length
    return [float(shares.max())] if shares.numel() else [0.0]
