"""All checks of one subject in one mode: verdicts, and where values differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from runner.audit.checks import verdict as kinds
from runner.audit.checks.cause import cause, failure
from runner.audit.checks.compare import Alone, Difference, compare, compare_loss, first_line, not_finite
from runner.audit.checks.locate import (
    Locator,
    Step,
    first_changed,
    first_not_finite,
    first_random,
    first_shared,
    named,
)
from runner.audit.checks.variations import Company, companies
from runner.audit.checks.verdict import Finding, Heat, Verdict
from runner.audit.tracing.alignment import differences, worst_difference
from runner.audit.tracing.interventions import is_used
from runner.audit.tracing.module_state import Mode, seeded, unchanged
from runner.audit.tracing.observe import Observation, Setting, Subject, observe
from runner.profiling.kernels import missing_kernel

Arithmetic = Literal["float64", "float32", "bf16", "fp16"]
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NO_EQUAL = "no two examples are equally long"
NO_PADDING = "this layout holds no padding"
COPIES = 8  # of an example whose dropout is looked at: fewer may lose the same few values by chance


@dataclass
class Auditor:
    """Runs checks of one subject in one mode; the reference is shared by all of them.

    Attributes:
        alone: each example by itself, in float64.
        seed: of the groups.
        nan_gradients: where padding holds NaN, gradients are compared too.
        explained: failed verdicts say where and why, which takes many runs.
        failed: the run in which each failed check failed.
    """

    subject: Subject
    mode: Mode
    alone: Alone
    seed: int
    nan_gradients: bool = True
    explained: bool = True
    failed: dict[str, Company] = field(default_factory=dict)

    def verdicts(self) -> Iterator[Verdict]:
        """Of all checks that are made of runs, and of the loss; of random answers nothing more can be said."""
        made = companies(self.subject.lengths, self.subject.has_padding, self.seed)
        repeated = self._random() or self._repeat()
        yield repeated
        if repeated.finding is not None and repeated.finding.kind == kinds.RANDOM:
            for check in made:
                yield Verdict(self.subject.name, check, self.mode, None, reason="its answers are random")
            return
        bad = list(not_finite(self.alone))
        for check, runs in made.items():
            extra = bad if check == "extremes" else []
            yield self.verdict(check, self.differences(runs, extra), runs or extra)
        if any(run.loss is not None for run in self.alone.runs):
            yield self.verdict("loss", self._loss_differences(made["company"]), made["company"])

    def batches(self, batches: Sequence[Company]) -> Verdict:
        """The batches that a strategy makes."""
        return self.verdict("batches", self.differences(batches, []), batches)

    def differences(self, runs: Iterable[Company], extra: list[Difference]) -> Iterator[Difference]:
        yield from extra
        for company in runs:
            good = self._comparable(company)
            if not good.rows:
                continue
            base = None if good.against is None else observe(self.subject, good.against.rows, good.against.setting)
            seen = observe(self.subject, good.rows, good.setting)
            if good.setting.fill == "nan" and not self.nan_gradients:
                seen.gradients = {}
            yield from compare(self.alone, good, seen, base)

    def _comparable(self, company: Company) -> Company:
        """Without the examples that have no answer even alone: `extremes` tells of them."""
        rows = self.alone.comparable(company.rows)
        against = None if company.against is None else self._comparable(company.against)
        return replace(company, rows=rows, against=against)

    def _loss_differences(self, runs: Iterable[Company]) -> Iterator[Difference]:
        for company in runs:
            rows = self.alone.comparable(company.rows)
            if rows:
                yield from compare_loss(self.alone, Company(rows), observe(self.subject, rows, Setting(), loss=True))

    def verdict(self, check: str, found: Iterator[Difference], runs: Sequence[object]) -> Verdict:
        if not runs:
            reason = NO_EQUAL if check == "neighbours" else NO_PADDING
            return Verdict(self.subject.name, check, self.mode, None, reason=reason)
        worst, compared = 0.0, False
        for one in found:
            worst, compared = max(worst, one.share), True
            if one.not_run:
                return kinds.not_run(self.subject.name, check, self.mode, one.not_run)
            if one.share > 1.0:
                self.failed[check] = one.company
                why = self.finding(one) if self.explained else None
                return Verdict(self.subject.name, check, self.mode, False, one.share, why)
        return Verdict(self.subject.name, check, self.mode, True, worst) if compared else self._nothing_compared(check)

    def _nothing_compared(self, check: str) -> Verdict:
        """Return the verdict where no example has an answer even alone: `extremes` says why, or this machine cannot."""
        errors = [run.error for run in self.alone.runs if run.error is not None]
        if missing := next(filter(None, map(missing_kernel, errors)), ""):
            return kinds.not_run(self.subject.name, check, self.mode, missing)
        return Verdict(self.subject.name, check, self.mode, None, reason="no example has an answer in numbers")

    def finding(self, one: Difference) -> Finding:
        """Where and why."""
        if one.note.startswith("alone") and one.quantity != "error":
            module = first_not_finite(self.subject, one)
            kind = kinds.OVERFLOW if self.alone.coarse else kinds.NOT_FINITE  # in float64 it has an answer
            return self._found(one, module, kind, f"{one.quantity} is NaN {one.note}")
        if one.quantity == "error":
            module = observe(self.subject, one.company.rows, one.company.setting).failed_in
            why = failure(one)
            return self._found(one, module, why.kind, why.detail)
        locator = Locator(self.alone)
        found = locator.module_of(one)
        why = cause(self.alone, one, found, locator.witnesses())
        return self._found(one, found, why.kind, why.detail)

    def _found(self, one: Difference, module: str | None, kind: str, detail: str) -> Finding:
        name = one.place if module is None else named(self.subject, module)
        return Finding(name, kind, one.quantity, one.rows, one.size, one.allowed, detail)

    def _repeat(self) -> Verdict:
        """The same run on a module as it was, and on one that has just seen other rows."""
        rows = [row for row, _ in self.alone.finite()]
        if not rows:
            return self._nothing_compared("repeat")
        company, other = Company((rows[0], rows[-1])), Company((rows[-1], rows[len(rows) // 2]))
        worst = 0.0
        for asked, between in ((company, other), (other, company)):  # what is kept of the first may hide a change
            fresh = observe(self.subject, asked.rows, asked.setting)
            with unchanged(self.subject.module):
                for one in (asked, between) if asked is company else (between,):
                    observe(self.subject, one.rows, one.setting, keep_state=True)
                again = observe(self.subject, asked.rows, asked.setting, keep_state=True)
            size = max(map(worst_difference, fresh.outputs, again.outputs), default=0.0)
            difference = Difference("output", asked.rows, size, self.alone.allowed(), asked)
            if again.error is not None or difference.share > 1.0:
                return self._kept(difference, between, again)
            worst = max(worst, difference.share)
        return Verdict(self.subject.name, "repeat", self.mode, True, worst)

    def _kept(self, difference: Difference, other: Company, again: Observation) -> Verdict:
        why = f": {first_line(again.error)}." if again.error is not None else "."
        detail = f"The same rows get another answer after a batch of others{why}"
        module = first_changed(self.subject, difference.company, other)
        found = self._found(difference, module, kinds.STATE, detail)
        return Verdict(self.subject.name, "repeat", self.mode, False, max(difference.share, 2.0), found)

    def _random(self) -> Verdict | None:
        """A failed verdict if answers follow the seed."""
        company = Company(tuple(row for row, _ in self.alone.finite())[:2])
        if not company.rows:
            return None
        first, second = (_seeded(self.subject, company, seed) for seed in (1, 2))
        size = max(map(worst_difference, first.outputs, second.outputs), default=0.0)
        one = Difference("output", company.rows, size, self.alone.allowed(), company)
        if one.share <= 1.0 or first.error is not None or second.error is not None:
            return None
        module = first_random(self.subject, company)
        found = self._found(one, module, kinds.RANDOM, "The same batch gets another answer under another seed.")
        return Verdict(self.subject.name, "repeat", self.mode, False, one.share, found)

    def heat(self, tokens: Callable[[int], Sequence[str]]) -> Heat:
        """Where an example differs, module by module: in the run that failed first, or the one of all examples.

        Args:
            tokens: of an example, by its number.
        """
        check, company = next(iter(self.failed.items()), ("", None))
        if company is None:
            made = companies(self.subject.lengths, self.subject.has_padding, self.seed)
            check, company = next((name, made[name][-1]) for name in ("huge", "company") if made[name])
        company = self._comparable(company)
        steps = [one for one in Locator(self.alone).steps(company) if self._is_shown(one, company)]
        row = _hottest(steps, {row: len(tokens(row)) for row in company.rows})
        mine = [step for step in steps if row in step.members]
        shares = [_by_position(step, row, int(self.subject.lengths[row])) for step in mine]
        names = [named(self.subject, step.record.module) for step in mine]
        return Heat(self.subject.name, check, self.mode, row, names, list(tokens(row)), shares)

    def _is_shown(self, step: Step, company: Company) -> bool:
        """Whether it is right, or is used: the state of an RNN behind its padding, which no one reads, is neither."""
        return not step.rows() or is_used(self.subject, company.rows, company.setting, step.record)


def arithmetic_verdict(
    subject: Subject, alone: Alone, check: str, mode: Mode, seed: int, explained: bool = True
) -> Verdict:
    """Companies in coarser arithmetic against float64, with what the examples alone lose there as the measure.

    Args:
        subject: cast to the arithmetic.
        alone: the examples alone in that arithmetic, with their truth in float64.
        check: the arithmetic's name.
    """
    coarse = Auditor(subject, mode, alone, seed, explained=explained)
    made = companies(subject.lengths, subject.has_padding, seed)
    runs = [*made["company"], *made["extremes"]]
    return coarse.verdict(check, coarse.differences(runs, list(not_finite(alone))), runs)


def dropout_verdict(subject: Subject, row: int) -> Verdict:
    """Copies of one example in one batch, with dropout on: each must draw for itself."""
    company = Company((row,) * COPIES)
    first, second = (_seeded(subject, company, seed) for seed in (1, 2))
    if first.error is not None or all(map(torch.equal, first.outputs, second.outputs)):
        return Verdict(subject.name, "dropout", "train", None, reason="no dropout is on")
    if any(not torch.equal(one, first.outputs[0]) for one in first.outputs[1:]):
        return Verdict(subject.name, "dropout", "train", True)
    detail = "Copies of an example in one batch lose the same values, and others in the next run."
    one = Difference("output", company.rows, 0.0, 0.0, company)
    module = named(subject, first_shared(subject, company))
    found = Finding(module, kinds.SHARED_DROPOUT, one.quantity, one.rows, 0.0, 0.0, detail)
    return Verdict(subject.name, "dropout", "train", False, torch.inf, found)


def own_dropout_verdict(subject: Subject, alone: Alone, seed: int, explained: bool) -> Verdict:
    """With dropout on, and examples that bring seeds for it: each loses in company what it loses alone."""
    auditor = Auditor(subject, "train", alone, seed, explained=explained)
    made = companies(subject.lengths, subject.has_padding, seed)
    runs = [run for check in ("order", "duplicates", "company", "extremes", "width") for run in made[check]]
    return auditor.verdict("dropout", auditor.differences(runs, []), runs)


def _seeded(subject: Subject, company: Company, seed: int) -> Observation:
    with seeded(seed):
        return observe(subject, company.rows, company.setting)


def _hottest(steps: Sequence[Step], lengths: Mapping[int, int]) -> int:
    """The example that differs most at the end; the longest of equals."""
    sizes = dict.fromkeys(lengths, 0.0)
    for step in steps:  # the last one of each example stays
        for row, mine, theirs in zip(step.members, step.together, step.alone, strict=True):
            size = worst_difference(mine, theirs)
            sizes[row] = size if size > step.allowed else 0.0
    return max(sizes, key=lambda row: (sizes[row], lengths[row]))


def _by_position(step: Step, row: int, length: int) -> list[float]:
    """(length,) shares of what is allowed, or one number for values without position."""
    place = step.members.index(row)
    found = differences(step.together[place], step.alone[place]) / max(step.allowed, 1e-300)
    if found.dim() and len(found) == length and length > 0:
        return [float(one) for one in found.reshape(length, -1).amax(dim=1)] if found.numel() else [0.0] * length
    return [float(found.max())] if found.numel() else [0.0]
