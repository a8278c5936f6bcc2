"""The results of the audit: a verdict for each check and, where it failed, the place, size, cause and fix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

VALUE_LEAK = "value leak through padding"
WIDTH = "width dependence"
ORDER = "order dependence"
NEIGHBOURS = "neighbour dependence"
STATE = "state carried over"
LOSS = "loss normalisation"
METRIC = "metric computed per batch"
RANDOM = "random answers"
SHARED_DROPOUT = "randomness shared by rows"
NOT_FINITE = "not finite"
OVERFLOW = "numeric overflow"
ERROR = "error"

ROOTS = (STATE, RANDOM)  # faults that may cause every other difference of the same subject
COARSE_CHECKS = ("float32", "bf16", "fp16")
FOLLOWS = ("loss", "metric")  # places that also fail wherever a module is wrong

HINTS = {
    VALUE_LEAK: "values in the padding reach real tokens: select before you mix, with x.masked_fill(~mask, 0) for sums "
    "and convolutions, and -inf for maxima and softmax; run the backward direction from each row's own end; or pack "
    "the rows",
    WIDTH: "the result depends on the amount of padding: divide by lengths, count positions from the row's own start, "
    "take the state at length - 1, and stop recursions where the row ends",
    ORDER: "outputs come back in a different order than the rows went in: undo the sort, or sort labels and lengths "
    "too; or one row leaves state behind for the next",
    NEIGHBOURS: "rows of one batch are mixed although there is no padding: statistics over the batch (batch norm), a "
    "convolution across the boundary of two rows, or a wrong axis",
    STATE: "state is kept from one batch to the next: start each batch from zeros, and keep no tensors in self",
    LOSS: "the loss is averaged in parts: return its sum and its count, and divide once per update",
    METRIC: "the metric is averaged over batches: accumulate counts or sums, and compute once at the end",
    RANDOM: "the same examples give different outputs under another seed: turn off the module's randomness (dropout "
    "under other names, noise, stochastic depth), or audit eval mode only",
    SHARED_DROPOUT: "all rows share one dropout mask: draw (rows, 1, size), not (1, 1, size) or (1, width, size)",
    NOT_FINITE: "a row without tokens, or a fully masked one, gives NaN: divide by max(length, 1), and let such rows "
    "attend to one position whose output is not used",
    OVERFLOW: "a constant such as -1e9 does not fit into half precision: mask with -inf, or torch.finfo(x.dtype).min",
    ERROR: "the module cannot process such examples: return an output for them, or document which examples it accepts",
}


@dataclass(frozen=True)
class Finding:
    """The reason why a check failed.

    Attributes:
        module: the first module at which values of real tokens differ (dotted name and class), or `loss`, `metric`.
        kind: one of the constants above.
        quantity: the quantity that differed: `output`, `prediction`, `gradient of NAME`, `loss`, ...
        rows: the affected examples.
        size: largest |difference|.
        allowed: largest |difference| that rounding could explain.
        detail: one sentence on how the kind was determined.
    """

    module: str
    kind: str
    quantity: str
    rows: tuple[int, ...]
    size: float
    allowed: float
    detail: str

    @property
    def hint(self) -> str:
        return HINTS[self.kind]


@dataclass(frozen=True)
class Verdict:
    """The result of one check of one subject in one mode.

    Attributes:
        passed: None where the check does not apply or was not run; `reason` then says why.
        worst: largest difference divided by the allowed one; the check fails above 1.
        not_run: True where this machine lacks a kernel that the model needs, which says nothing about the model.
    """

    subject: str
    check: str
    mode: str
    passed: bool | None
    worst: float = 0.0
    finding: Finding | None = None
    reason: str = ""
    not_run: bool = False


def not_run(subject: str, check: str, mode: str, error: str) -> Verdict:
    """Return the verdict of a check that this machine cannot run; `error` is torch's message about the kernel."""
    return Verdict(subject, check, mode, None, reason=f"not run here: {error}", not_run=True)


@dataclass(frozen=True)
class Fault:
    """Failed verdicts that share module and kind.

    Attributes:
        finding: the finding with the largest difference; finite differences take precedence.
        subjects, checks, modes: those in which the fault was seen.
        after: further checks that fail, and may fail only because of this fault.
    """

    finding: Finding
    subjects: list[str]
    checks: list[str]
    modes: list[str]
    after: list[str]

    @property
    def lines(self) -> tuple[str, str, str]:
        """Three lines of text: kind, place and size of the fault; how it was determined; how to fix it."""
        finding = self.finding
        rows = ", ".join(map(str, finding.rows[:6])) + (", ..." if len(finding.rows) > 6 else "")
        size = f"differs by {finding.size:.3g}, rounding allows {finding.allowed:.1g}"
        if not math.isfinite(finding.size):
            size = "is an error" if finding.quantity == "error" else "is NaN or infinite"
        seen = f"rows {rows}; checks {', '.join(self.checks)}; {' and '.join(self.modes)} mode"
        after = f"; {', '.join(self.after)} fail with it" if self.after else ""
        first = (
            f"{', '.join(self.subjects)}: {finding.kind} at {finding.module}: {finding.quantity} {size} ({seen}){after}"
        )
        return first, finding.detail, f"{finding.hint[:1].upper()}{finding.hint[1:]}."


@dataclass(frozen=True)
class Heat:
    """A heat map of the differences of one example: modules (in the order in which they ran) by positions.

    Attributes:
        subject, check, mode: the run that is shown.
        row: the example.
        modules: names of the modules, first to last.
        tokens: the example's tokens, or positions.
        shares: (modules, positions) |difference| divided by the allowed one; a single number for values per row.
    """

    subject: str
    check: str
    mode: str
    row: int
    modules: list[str]
    tokens: list[str]
    shares: list[list[float]]


@dataclass
class Report:
    """All verdicts of an audit.

    Attributes:
        title: name of the audited model.
        controls: subjects that are known to be wrong; they do not count, but show that the audit can fail.
        facts: further information for the reader (rows, parameters, seconds, ...).
    """

    title: str
    verdicts: list[Verdict] = field(default_factory=list)
    heats: list[Heat] = field(default_factory=list)
    controls: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True if no check failed, and all that decide were run; controls do not count.

        The checks in single and half precision say how rounding adds up. Those in float64 decide, so an audit of which
        this machine could not run one has no result.
        """
        undecided = any(verdict.check not in COARSE_CHECKS for verdict in self.not_run)
        counted = (verdict for verdict in self.verdicts if verdict.subject not in self.controls)
        return not self.failures() and not undecided and any(verdict.passed for verdict in counted)

    @property
    def not_run(self) -> list[Verdict]:
        """The verdicts of checks that this machine could not run, without those of controls."""
        return [verdict for verdict in self.verdicts if verdict.not_run and verdict.subject not in self.controls]

    def failures(self, controls: bool = False) -> list[Verdict]:
        """Return the failed verdicts, in the order of the checks; those of controls only on request."""
        return [
            verdict
            for verdict in self.verdicts
            if verdict.passed is False and (controls or verdict.subject not in self.controls)
        ]

    def subjects(self) -> list[str]:
        return list(dict.fromkeys(verdict.subject for verdict in self.verdicts))

    def checks(self) -> list[str]:
        return list(dict.fromkeys(verdict.check for verdict in self.verdicts))

    def of(self, subject: str, check: str) -> list[Verdict]:
        """Return the verdicts of one check of one subject, one for each mode."""
        return [verdict for verdict in self.verdicts if (verdict.subject, verdict.check) == (subject, check)]

    def raise_if_failed(self) -> None:
        """Fail a test where the audit fails.

        Raises:
            AssertionError: a check failed (the message names module, kind and hint of each fault), or one that decides
                was not run.
        """
        if self.failures():
            messages = ["\n  ".join(fault.lines) for fault in faults(self.failures())]
            raise AssertionError("\n".join([f"{self.title}: not batch-invariant", *messages]))
        if not self.passed:
            reasons = dict.fromkeys(verdict.reason for verdict in self.verdicts if verdict.reason)
            raise AssertionError("\n".join([f"{self.title}: undecided, since checks were not run", *reasons]))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as `--json` writes them."""
        verdicts = []
        for verdict in self.verdicts:
            plain = asdict(verdict)
            if verdict.finding is not None:
                plain["finding"]["hint"] = verdict.finding.hint
            verdicts.append(plain)
        return {
            "title": self.title,
            "passed": self.passed,
            "not_run": len(self.not_run),
            "controls": list(self.controls),
            "facts": self.facts,
            "verdicts": verdicts,
            "heats": [asdict(heat) for heat in self.heats],
        }


def faults(failed: Sequence[Verdict]) -> list[Fault]:
    """Group failed verdicts by module and kind, in the order in which they were found.

    A verdict that may follow from another fault of the same subject is listed with that fault (`after`): loss and
    metric where a module is wrong, and everything where outputs are random or depend on kept state. If such a check
    has a fault of its own, it shows once the first fault is fixed.
    """
    explained = [(verdict, verdict.finding) for verdict in failed if verdict.finding is not None]
    groups: dict[tuple[str, str], list[Verdict]] = {}
    after: dict[tuple[str, str], list[str]] = {}
    roots: dict[str, tuple[str, str]] = {}
    modules: dict[str, tuple[str, str]] = {}
    for verdict, finding in explained:
        if finding.module not in FOLLOWS:
            modules.setdefault(verdict.subject, (finding.module, finding.kind))
    for verdict, finding in explained:
        key = (finding.module, finding.kind)
        cause = modules.get(verdict.subject) if finding.module in FOLLOWS else None
        if finding.kind in ROOTS:
            roots.setdefault(verdict.subject, key)
        else:
            cause = roots.get(verdict.subject, cause)
        if cause is None:
            groups.setdefault(key, []).append(verdict)
        else:
            after.setdefault(cause, []).append(verdict.check)
    return [_fault(group, after.get(key, [])) for key, group in groups.items()]


def _fault(group: Sequence[Verdict], after: Sequence[str]) -> Fault:
    worst = max(
        group, key=lambda verdict: (verdict.finding is not None and math.isfinite(verdict.finding.size), verdict.worst)
    )
    assert worst.finding is not None
    subjects, checks, modes = ([getattr(verdict, key) for verdict in group] for key in ("subject", "check", "mode"))
    return Fault(worst.finding, *(list(dict.fromkeys(names)) for names in (subjects, checks, modes, after)))


State = Literal["ok", "fail", "not run", "none"]


def state_of(verdicts: Sequence[Verdict]) -> State:
    """Return the combined state of several modes: the worst of them, `none` where the check applies to no mode."""
    if any(verdict.passed is False for verdict in verdicts):
        return "fail"
    if any(verdict.not_run for verdict in verdicts):
        return "not run"
    return "ok" if any(verdict.passed for verdict in verdicts) else "none"
