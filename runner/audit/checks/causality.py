"""The check `causality`: no output, and no loss, may change with the tokens that come after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from runner.audit.checks import kinds
from runner.audit.checks.compare import SingleReference, largest_magnitude
from runner.audit.checks.locate import module_label
from runner.audit.checks.verdict import Finding, Verdict
from runner.audit.tracing.alignment import reading, split, worst_difference
from runner.audit.tracing.module_state import Mode
from runner.audit.tracing.observe import AdapterError, Record, Setting, Side, Subject, observe, trace
from runner.common.arrays import IntArray

ROWS = 6  # number of examples, spread by length: each costs up to seven runs
NOTHING_LATER = "no example has a later token"
ENDS = ("when the tokens after them are cut off", "with other tokens after them")


class Cut(NamedTuple):
    """An example of which the first tokens are kept."""

    row: int
    kept: int  # number of tokens, at least 1 and less than the example has


class CausalSubject(Subject, Protocol):
    """A subject whose examples can be continued in other ways."""

    def continued(self, cuts: Sequence[Cut]) -> Self:
        """Return the subject with three examples for each cut, whose outputs all hold a vector per token.

        They are the whole example, its kept tokens alone, and the kept tokens followed by as many other tokens as were
        cut off.
        """


def causality_verdict(subject: CausalSubject, reference: SingleReference, mode: Mode) -> Verdict:
    """Compare examples at their first tokens with the same examples that end earlier or continue differently.

    Each is run by itself, so that nothing else differs; no gradients are needed. `reference` is the subject's.
    """
    cuts = _cuts(subject.lengths, reference.good)
    if not cuts:
        return Verdict(subject.name, "causality", mode, None, reason=NOTHING_LATER)
    varied, worst = subject.continued(cuts), 0.0
    for place, cut in enumerate(cuts):
        whole, *others = (3 * place + number for number in range(3))
        expected = _output(varied, whole)
        for end, other in zip(ENDS, others, strict=True):
            output = _output(varied, other)
            if expected is None or output is None:  # `extremes` reports the error
                continue
            if len(expected) != varied.lengths[whole] or len(output) != varied.lengths[other]:
                raise AdapterError(f"causal: an output must have a vector per token, got shape {tuple(output.shape)}")
            allowed = reference.tolerance.of(max(reference.scale, largest_magnitude([expected])), reference.measured)
            size = worst_difference(output[: cut.kept], expected[: cut.kept])
            worst = max(worst, size / allowed if allowed else 0.0)
            if size > allowed:
                module = module_label(subject, _first_ahead(varied, whole, other, cut.kept, allowed))
                detail = f"The outputs of the first {cut.kept} of {varied.lengths[whole]} tokens change {end}."
                finding = Finding(module, kinds.FUTURE, "output", (cut.row,), size, allowed, detail)
                return Verdict(subject.name, "causality", mode, False, worst, finding)
    return Verdict(subject.name, "causality", mode, True, worst)


def _cuts(lengths: IntArray, good: Sequence[int]) -> list[Cut]:
    """Return cuts near the start, in the middle and before the last token of some examples."""
    rows = sorted((row for row in good if lengths[row] > 1), key=lambda row: int(lengths[row]))
    spread = np.unique(np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)) if rows else ()
    chosen = [(rows[place], int(lengths[rows[place]])) for place in spread]
    return [Cut(row, kept) for row, length in chosen for kept in sorted({1, length // 2, length - 1})]


def _output(subject: Subject, example: int) -> Tensor | None:
    with torch.no_grad():
        observation = observe(subject, [example], Setting())
    return None if observation.error is not None else observation.outputs[0]


def _first_ahead(subject: Subject, whole: int, other: int, kept: int, allowed: float) -> str:
    """Return the first module of which kept tokens differ, or the one enclosing it if they differ in its input."""
    for record in _ahead(subject, whole, other, kept, allowed):
        module = record.module
        given = _ahead(subject, whole, other, kept, allowed, module, "inputs") if module else iter(())
        return module.rpartition(".")[0] if next(given, None) else module
    return ""


def _ahead(
    subject: Subject,
    whole: int,
    other: int,
    kept: int,
    allowed: float,
    only: str | None = None,
    side: Side = "outputs",
) -> Iterator[Record]:
    """Yield the parts of outputs (or inputs) of modules, in execution order, that differ at kept tokens."""
    geometries = [subject.geometry([example], Setting()) for example in (whole, other)]
    traces = [trace(subject, [example], Setting(), only, side) for example in (whole, other)]
    others = {record.key: record for record in traces[1]}
    for record in traces[0]:
        if (pair := others.get(record.key)) is None:
            continue
        how = reading(zip((record.value, pair.value), geometries, strict=True))
        if how is None:
            continue
        values = [split(part.value, how, g)[0] for part, g in zip((record, pair), geometries, strict=True)]
        per_token = all(v.dim() and len(v) == g.lengths[0] for v, g in zip(values, geometries, strict=True))
        if per_token and worst_difference(values[0][:kept], values[1][:kept]) > allowed:
            yield record
