"""The results of the audit: a verdict for each check and, where it failed, the place, size, cause and fix."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from runner.audit.checks.kinds import HINTS, ROOTS

COARSE_CHECKS = ("float32", "bf16", "fp16")
FOLLOWS = ("loss", "metric")  # these also fail whenever a module is wrong
Key = tuple[str, str]  # module and kind of a fault
State = Literal["ok", "fail", "not run", "none"]


@dataclass(frozen=True)
class Finding:
    """The reason why a check failed."""

    module: str  # the first module at which values of real tokens differ (dotted name and class), or `loss`, `metric`
    kind: str  # a constant of `runner.audit.checks.kinds`
    quantity: str  # the quantity that differed: `output`, `prediction`, `gradient of NAME`, `loss`, `error` or a metric
    rows: tuple[int, ...]  # the affected examples
    size: float  # largest |difference|
    allowed: float  # largest |difference| that rounding could explain
    detail: str  # one sentence on how the kind was determined

    @property
    def hint(self) -> str:
        return HINTS[self.kind]


@dataclass(frozen=True)
class Verdict:
    """The result of one check of one subject in one mode."""

    subject: str
    check: str
    mode: str
    passed: bool | None  # None where the check does not apply or was not run; `reason` then says why
    worst: float = 0.0  # largest difference divided by the allowed one; the check fails above 1
    finding: Finding | None = None
    reason: str = ""
    not_run: bool = False  # this machine lacks a kernel that the model needs, which says nothing about the model


@dataclass(frozen=True)
class Fault:
    """Failed verdicts that share module and kind."""

    finding: Finding  # the finding with the largest difference; finite differences take precedence
    subjects: list[str]  # the fault was seen in these subjects, checks and modes
    checks: list[str]
    modes: list[str]
    after: list[str]  # further checks that fail, and may fail only because of this fault

    @property
    def headline(self) -> str:
        """One line: where the fault was seen, its kind and its place, and the size of the difference."""
        finding = self.finding
        effect = f"{finding.quantity} differs by {finding.size:.3g}, rounding explains at most {finding.allowed:.1g}"
        if finding.quantity == "error":
            effect = "the module raises an error"
        elif not math.isfinite(finding.size):
            effect = f"{finding.quantity} is NaN or infinite"
        return f"{', '.join(self.subjects)}: {finding.kind} at {finding.module}: {effect}"

    @property
    def details(self) -> list[str]:
        """Three lines: the checks and examples that show the fault; how its kind was determined; how to fix it."""
        rows = self.finding.rows
        examples = f"{', '.join(map(str, rows[:6]))}{', ...' if len(rows) > 6 else ''}"
        shown = f"Seen by {', '.join(self.checks)} in {' and '.join(self.modes)} mode, in examples {examples}."
        after = f" Also fails, perhaps for the same reason: {', '.join(self.after)}." if self.after else ""
        return [shown + after, self.finding.detail, f"How to fix it: {self.finding.hint}"]


@dataclass(frozen=True)
class HeatMap:
    """A heat map of the differences of one example (`row`): modules (in the order in which they ran) by positions."""

    subject: str
    check: str
    mode: str
    row: int
    modules: list[str]
    tokens: list[str]  # the example's tokens, or positions
    shares: list[list[float]]  # (modules, positions) |difference| / allowed one; a single number for values per row


@dataclass(frozen=True)
class AuditFacts:
    """Facts about the audit of a config."""

    examples: int  # number of examples
    lengths: list[int]  # their numbers of tokens, sorted
    parameters: int  # number of the model's parameters
    weights: str  # the audited checkpoint, or `fresh`
    content: str  # the source of the examples' tokens
    arithmetics: list[str]
    left_out: dict[str, str]  # name -> reason, for strategies that were not audited
    torch: str  # version of torch
    device: str
    seconds: float
    precision_note: str  # a sentence, if this machine computed in another precision than the checked one; else empty

    def by_name(self) -> dict[str, object]:
        """Return plain values under readable names, as pages and `--json` show them."""
        return {name.replace("_", " "): value for name, value in asdict(self).items()}


@dataclass
class AuditReport:
    """All verdicts of an audit."""

    title: str  # name of the audited model
    verdicts: list[Verdict] = field(default_factory=list)  # one for each check, subject and mode, as they were found
    heats: list[HeatMap] = field(default_factory=list)
    controls: tuple[str, ...] = ()  # subjects known to be wrong; they do not count, but show that the audit can fail
    facts: AuditFacts | None = None  # only for the audit of a config

    @property
    def passed(self) -> bool:
        """True if no check failed and all decisive checks were run; controls do not count.

        The checks in float64 are decisive: if this machine could not run one of them, the audit has no result. The
        checks in single and half precision show how rounding adds up.
        """
        undecided = any(verdict.check not in COARSE_CHECKS for verdict in self.not_run)
        any_passed = any(verdict.passed and verdict.subject not in self.controls for verdict in self.verdicts)
        return any_passed and not self.failures() and not undecided

    @property
    def not_run(self) -> list[Verdict]:
        """The verdicts of checks that this machine could not run, without those of controls."""
        return [verdict for verdict in self.verdicts if verdict.not_run and verdict.subject not in self.controls]

    def failures(self, controls: bool = False) -> list[Verdict]:
        """Return the failed verdicts, in the order of the checks; those of controls only on request."""
        failed = [verdict for verdict in self.verdicts if verdict.passed is False]
        return [verdict for verdict in failed if controls or verdict.subject not in self.controls]

    def subjects(self) -> list[str]:
        return unique(verdict.subject for verdict in self.verdicts)

    def audited(self) -> list[str]:
        """Return the subjects that are not controls."""
        return [subject for subject in self.subjects() if subject not in self.controls]

    def checks(self) -> list[str]:
        return unique(verdict.check for verdict in self.verdicts)

    def of(self, subject: str, check: str) -> list[Verdict]:
        """Return the verdicts of one check of one subject, one for each mode."""
        return [verdict for verdict in self.verdicts if (verdict.subject, verdict.check) == (subject, check)]

    @property
    def fault(self) -> str:
        """The fault that the failed checks show, such as `not batch-invariant`."""
        checks = {verdict.check for verdict in self.failures()}
        shown = ["not batch-invariant"] if checks - {"causality"} else []
        return " and ".join([*shown, *(["not causal"] if "causality" in checks else [])])

    def raise_if_failed(self) -> None:
        """Fail a test where the audit fails.

        Raises:
            AssertionError: a check failed (the message names module, kind and hint of each fault), or a decisive check
                was not run.
        """
        if self.failures():
            messages = ["\n  ".join([fault.headline, *fault.details]) for fault in faults(self.failures())]
            raise AssertionError("\n".join([f"{self.title}: {self.fault}", *messages]))
        if not self.passed:
            reasons = unique(verdict.reason for verdict in self.verdicts if verdict.reason)
            raise AssertionError("\n".join([f"{self.title}: undecided, because checks were not run", *reasons]))

    def as_dict(self) -> dict[str, object]:
        """Return plain values, as `--json` writes them."""
        verdicts = [asdict(verdict) for verdict in self.verdicts]
        for plain, verdict in zip(verdicts, self.verdicts, strict=True):
            if verdict.finding is not None:
                plain["finding"]["hint"] = verdict.finding.hint
        return {
            "title": self.title,
            "passed": self.passed,
            "not_run": len(self.not_run),
            "controls": list(self.controls),
            "facts": {} if self.facts is None else self.facts.by_name(),
            "verdicts": verdicts,
            "heats": [asdict(heat) for heat in self.heats],
        }


def faults(failed: Sequence[Verdict]) -> list[Fault]:
    """Group failed verdicts by module and kind, in the order in which they were found.

    A verdict that may follow from another fault of the same subject is listed with that fault (`after`): loss and
    metric where a module is wrong, and everything where outputs are random or depend on kept state. If such a check
    has a fault of its own, it shows once the first fault is fixed.
    """
    explained = [(v, finding, (finding.module, finding.kind)) for v in failed if (finding := v.finding)]
    groups, after = defaultdict[Key, list[tuple[Verdict, Finding]]](list), defaultdict[Key, list[str]](list)
    roots: dict[str, Key] = {}
    modules = {v.subject: key for v, finding, key in reversed(explained) if finding.module not in FOLLOWS}
    for verdict, finding, key in explained:
        cause = modules.get(verdict.subject) if finding.module in FOLLOWS else None
        if finding.kind in ROOTS:
            roots.setdefault(verdict.subject, key)
        else:
            cause = roots.get(verdict.subject, cause)
        if cause is None:
            groups[key].append((verdict, finding))
        else:
            after[cause].append(verdict.check)
    result = []
    for key, group in groups.items():
        _, finding = max(group, key=lambda pair: (math.isfinite(pair[1].size), pair[0].worst))
        triples = zip(*((verdict.subject, verdict.check, verdict.mode) for verdict, _ in group), strict=True)
        subjects, checks, modes = map(unique, triples)
        result.append(Fault(finding, subjects, checks, modes, unique(after[key])))
    return result


def unique(names: Iterable[str]) -> list[str]:
    """Return the distinct names in order."""
    return list(dict.fromkeys(names))


def state_of(verdicts: Sequence[Verdict]) -> State:
    """Return the combined state of several modes: the worst of them, `none` where the check applies to no mode."""
    if any(verdict.passed is False for verdict in verdicts):
        return "fail"
    if any(verdict.not_run for verdict in verdicts):
        return "not run"
    return "ok" if any(verdict.passed for verdict in verdicts) else "none"
