"""What the audit says: a verdict for each check, and for one that failed, where, how much, why, and how to mend it."""

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

ROOTS = (STATE, RANDOM)  # whatever else is seen after such a fault may follow from it
FOLLOWS = ("loss", "metric")  # places that are wrong wherever a module is

HINTS = {
    VALUE_LEAK: "what stands in padding reaches real tokens: select before you mix, x.masked_fill(~mask, 0) for sums "
    "and convolutions, -inf for maxima and softmax; run backwards from each row's own end; or pack the rows",
    WIDTH: "the amount of padding is counted in: divide by lengths, count positions from the row's own begin, take the "
    "state at length - 1, and stop recursions where the row ends",
    ORDER: "answers come back in another order than the rows went in: undo the sort, or sort labels and lengths too; "
    "or one row leaves something behind for the next",
    NEIGHBOURS: "rows of one batch are mixed though there is no padding: statistics over the batch (batch norm), a "
    "convolution across the joint of two rows, or a wrong axis",
    STATE: "something is kept from one batch to the next: begin each batch from zeros, and keep no tensors in self",
    LOSS: "the loss is averaged in parts: give its sum and its count, and divide once an update",
    METRIC: "figures are averaged over batches: gather counts or sums, and compute once at the end",
    RANDOM: "the same examples get other answers under another seed: turn its randomness off (dropout of other names, "
    "noise, stochastic depth), or audit eval mode alone",
    SHARED_DROPOUT: "one mask serves all rows: draw (rows, 1, size), not (1, 1, size) or (1, width, size)",
    NOT_FINITE: "a row of nothing, or one masked altogether, gives NaN: divide by max(length, 1), and let such rows "
    "see one place whose answer is not used",
    OVERFLOW: "a constant such as -1e9 has no half-precision value: mask with -inf, or torch.finfo(x.dtype).min",
    ERROR: "the module cannot take such examples: answer them, or say which it takes",
}


@dataclass(frozen=True)
class Finding:
    """Why a check failed.

    Attributes:
        module: the first at which values in valid positions differ, by dotted name and class; or `loss`, `metric`.
        kind: one of those above.
        quantity: what differed: `output`, `prediction`, `gradient of NAME`, `loss`, ...
        rows: examples that are touched.
        size: largest |difference|; `allowed`: what rounding could explain.
        detail: one sentence on how it was seen.
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
    """One check of one subject in one mode.

    Attributes:
        passed: None where the check does not apply, or was not run; `reason` then says why.
        worst: largest difference as a share of what is allowed; above 1 it fails.
        not_run: this machine has no kernel for what the model computes, which says nothing of the model.
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
    """Return the verdict of a check that this machine cannot make; `error` is what torch says of the missing kernel."""
    return Verdict(subject, check, mode, None, reason=f"not run here: {error}", not_run=True)


@dataclass(frozen=True)
class Fault:
    """Failed verdicts that have module and kind in common.

    Attributes:
        finding: the one that differs most, as far as a number tells.
        subjects, checks, modes: where it was seen.
        after: checks that fail too, as they must or may where this is wrong.
    """

    finding: Finding
    subjects: list[str]
    checks: list[str]
    modes: list[str]
    after: list[str]

    @property
    def lines(self) -> tuple[str, str, str]:
        """What, where and how much; how it was seen; how to mend it."""
        found = self.finding
        rows = ", ".join(map(str, found.rows[:6])) + (", ..." if len(found.rows) > 6 else "")
        size = f"differs by {found.size:.3g}, rounding allows {found.allowed:.1g}"
        if not math.isfinite(found.size):
            size = "is an error" if found.quantity == "error" else "is lost: NaN or infinite"
        seen = f"rows {rows}; checks {', '.join(self.checks)}; {' and '.join(self.modes)} mode"
        after = f"; {', '.join(self.after)} fail with it" if self.after else ""
        first = f"{', '.join(self.subjects)}: {found.kind} at {found.module}: {found.quantity} {size} ({seen}){after}"
        return first, found.detail, f"{found.hint[:1].upper()}{found.hint[1:]}."


@dataclass(frozen=True)
class Heat:
    """Where values differ: for one example, modules (in the order in which they ran) x its positions.

    Attributes:
        subject, check, mode: of what.
        row: the example.
        modules: names, first to last.
        tokens: the example's tokens, or positions.
        shares: (modules, positions) |difference| as a share of what is allowed; one number for values without position.
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
        title: what was audited.
        controls: subjects that are known to be wrong; they do not count, but show that the audit can fail.
        facts: further lines for the reader (rows, parameters, seconds, ...).
    """

    title: str
    verdicts: list[Verdict] = field(default_factory=list)
    heats: list[Heat] = field(default_factory=list)
    controls: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether a check was made and none failed, controls apart."""
        return not self.failures() and any(one.passed for one in self.verdicts if one.subject not in self.controls)

    @property
    def not_run(self) -> list[Verdict]:
        """The checks that this machine could not make."""
        return [one for one in self.verdicts if one.not_run]

    def failures(self, controls: bool = False) -> list[Verdict]:
        """Failed verdicts, in the order in which checks are made; those of controls only on request."""
        return [one for one in self.verdicts if one.passed is False and (controls or one.subject not in self.controls)]

    def subjects(self) -> list[str]:
        return list(dict.fromkeys(one.subject for one in self.verdicts))

    def checks(self) -> list[str]:
        return list(dict.fromkeys(one.check for one in self.verdicts))

    def of(self, subject: str, check: str) -> list[Verdict]:
        """The verdicts of a check, one a mode."""
        return [one for one in self.verdicts if (one.subject, one.check) == (subject, check)]

    def raise_if_failed(self) -> None:
        """For tests.

        Raises:
            AssertionError: a check failed; the message names module, kind and hint of each fault. Or no check was made.
        """
        if self.failures():
            told = ["\n  ".join(one.lines) for one in faults(self.failures())]
            raise AssertionError("\n".join([f"{self.title}: not batch-invariant", *told]))
        if not self.passed:
            reasons = dict.fromkeys(one.reason for one in self.verdicts if one.reason)
            raise AssertionError("\n".join([f"{self.title}: no check was made", *reasons]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` writes them."""
        verdicts = []
        for one in self.verdicts:
            plain = asdict(one)
            if one.finding is not None:
                plain["finding"]["hint"] = one.finding.hint
            verdicts.append(plain)
        return {
            "title": self.title,
            "passed": self.passed,
            "not_run": len(self.not_run),
            "controls": list(self.controls),
            "facts": self.facts,
            "verdicts": verdicts,
            "heats": [asdict(one) for one in self.heats],
        }


def faults(failed: Sequence[Verdict]) -> list[Fault]:
    """Failed verdicts put together by module and kind, in the order in which they were found.

    What may follow from another fault of the same subject is named with that one: loss and metric, where a module is
    wrong, and all that comes after answers that are random or remember. A fault of their own shows once that is mended.
    """
    explained = [(one, one.finding) for one in failed if one.finding is not None]
    groups: dict[tuple[str, str], list[Verdict]] = {}
    after: dict[tuple[str, str], list[str]] = {}
    roots: dict[str, tuple[str, str]] = {}
    modules: dict[str, tuple[str, str]] = {}
    for one, found in explained:
        if found.module not in FOLLOWS:
            modules.setdefault(one.subject, (found.module, found.kind))
    for one, found in explained:
        key = (found.module, found.kind)
        cause = modules.get(one.subject) if found.module in FOLLOWS else None
        if found.kind in ROOTS:
            roots.setdefault(one.subject, key)
        else:
            cause = roots.get(one.subject, cause)
        if cause is None:
            groups.setdefault(key, []).append(one)
        else:
            after.setdefault(cause, []).append(one.check)
    return [_fault(group, after.get(key, [])) for key, group in groups.items()]


def _fault(group: Sequence[Verdict], after: Sequence[str]) -> Fault:
    worst = max(group, key=lambda one: (one.finding is not None and math.isfinite(one.finding.size), one.worst))
    assert worst.finding is not None
    subjects, checks, modes = ([getattr(one, key) for one in group] for key in ("subject", "check", "mode"))
    return Fault(worst.finding, *(list(dict.fromkeys(each)) for each in (subjects, checks, modes, after)))


State = Literal["ok", "fail", "not run", "none"]


def state_of(verdicts: Sequence[Verdict]) -> State:
    """Return the state of several modes together: the worst of them, `none` where the check applies to none."""
    if any(one.passed is False for one in verdicts):
        return "fail"
    if any(one.not_run for one in verdicts):
        return "not run"
    return "ok" if any(one.passed for one in verdicts) else "none"
