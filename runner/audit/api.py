"""The audit of any `torch.nn.Module`, from Python: `audit_module(module, examples, collate)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from runner.audit.checks.auditor import DTYPES, Arithmetic, Auditor, arithmetic_verdict, dropout_verdict
from runner.audit.checks.compare import Alone
from runner.audit.checks.metric import metric_verdict
from runner.audit.checks.verdict import Report, Verdict
from runner.audit.subjects.module import Collate, ModuleSubject
from runner.audit.tracing.module_state import Mode, in_mode, seeded
from runner.common.errors import HydromelError
from runner.interfaces import Loss


def audit_module(
    module: nn.Module,
    examples: Sequence[Any],
    collate: Collate,
    *,
    lengths: Callable[[Any], int] = len,
    left_padding: bool = False,
    answers: Callable[[Any, Sequence[int]], Sequence[Tensor]] | None = None,
    loss: Callable[[Any, Sequence[Any]], Tensor | Loss] | None = None,
    decode: Callable[[Any, Sequence[int]], Sequence[Tensor]] | None = None,
    metric: Callable[[], Any] | None = None,
    modes: Sequence[Mode] = ("eval", "train"),
    arithmetics: Sequence[Arithmetic] = ("float32",),
    nan_gradients: bool = False,
    name: str | None = None,
    seed: int = 1,
) -> Report:
    """Does what a module says about an example depend on what stands beside it?

    Args:
        module: audited as a float64 copy; it is left as it was.
        examples: at least two, of different lengths; some equally long ones, and one of no token if it takes such.
        collate: examples, `Padding` -> the module's arguments: a tensor, a tuple of them, or a dict by name.
            It must pad as `Padding` says; `padding.stack(rows)` and `padding.mask(lengths)` do.
        lengths: tokens of an example.
        left_padding: padding stands before the tokens.
        answers: the module's output and the lengths -> one tensor an example, real positions only. Without it, every
            tensor of the output is read by its shape: (B, T, *), (T, B, *), (B, C, T), (N, *), (B, *), ...
        loss: output, examples -> `Loss(sum, count)`, (B,) losses of single examples, or a plain mean (then cutting an
            update must not change it).
        decode: output, lengths -> one tensor of predictions an example.
        metric: makes an object with `update(output, examples)` and `compute() -> dict`; figures must not depend on
            how the examples are cut into batches.
        modes: torch's own modules change kernels between them.
        arithmetics: besides float64: float32, bf16, fp16. Their tolerance is what the examples alone lose in them.
        nan_gradients: gradients too must be numbers where padding holds NaN. They are not in most right modules: the
            gradient of a weight is 0 times the NaN that came in. A module that fills padding before each weight passes.
        seed: of the groups.

    Returns:
        A report; `report.raise_if_failed()` is for tests, `report.passed`, `report.failures()` for the rest.

    Raises:
        HydromelError: fewer than two examples, a mode or an arithmetic that is none, no `torch.nn.Module`, an output
            that cannot be told apart by example, or one of the functions given does not do its part.
    """
    _check(module, examples, modes, arithmetics)
    if metric is not None and not callable(metric):
        raise HydromelError(f"metric is a {type(metric).__name__}; give what makes a fresh one, such as its class")
    title = name or type(module).__name__
    subject = ModuleSubject(
        module,
        examples,
        collate,
        lengths=[lengths(one) for one in examples],
        left=left_padding,
        answers=answers,
        loss=loss,
        decode=decode,
        name=title,
    )
    subject.check_collate()
    exact = subject.cast("float64")
    report = Report(title)
    with seeded(seed):  # dropout draws in train mode, though it drops nothing
        for mode in modes:
            report.verdicts += _in_mode(subject, exact, mode, arithmetics, seed, nan_gradients)
        if metric is not None:
            with in_mode(exact.module, "eval"):
                report.verdicts.append(metric_verdict(title, exact.figures(metric), range(len(examples))))
        exact.module.train()
        report.verdicts.append(dropout_verdict(exact, int(np.argmax(exact.lengths))))
    return report


def _in_mode(
    subject: ModuleSubject,
    exact: ModuleSubject,
    mode: Mode,
    arithmetics: Sequence[Arithmetic],
    seed: int,
    nan_gradients: bool,
) -> Iterator[Verdict]:
    """All checks in float64, and the coarser arithmetics against it."""
    with in_mode(exact.module, mode):
        alone = Alone(exact, torch.float64)
        yield from Auditor(exact, mode, alone, seed, nan_gradients).verdicts()
        for arithmetic in arithmetics:
            with in_mode((coarse := subject.cast(arithmetic)).module, mode):
                there = Alone(coarse, DTYPES[arithmetic], exact=alone)
                yield arithmetic_verdict(coarse, there, arithmetic, mode, seed)


def _check(module: object, examples: Sequence[Any], modes: Sequence[str], arithmetics: Sequence[str]) -> None:
    """Raises HydromelError where these cannot be audited."""
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise HydromelError(f"module is a {type(module).__name__}; give a torch.nn.Module, before it is scripted")
    if len(examples) < 2:
        raise HydromelError(f"an audit needs at least two examples, got {len(examples)}")
    for name, given, allowed in (("modes", modes, get_args(Mode)), ("arithmetics", arithmetics, tuple(DTYPES))):
        if isinstance(given, str) or not set(given) <= set(allowed) or (name == "modes" and not given):
            raise HydromelError(f"{name}={given!r}: give a tuple of {', '.join(allowed)}")
