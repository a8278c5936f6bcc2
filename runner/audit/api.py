"""The audit of any `torch.nn.Module`, from Python: `audit_module(module, examples, collate)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from runner.audit.checks.auditor import Arithmetic, Auditor, arithmetic_verdict, dropout_verdict
from runner.audit.checks.causality import causality_verdict
from runner.audit.checks.compare import SingleReference
from runner.audit.checks.metric import metric_verdict
from runner.audit.checks.verdict import AuditReport
from runner.audit.subjects.module import Collate, Example, ExampleMetric, LossFunction, ModuleSubject, Output, Splitter
from runner.audit.tracing.module_state import Mode, in_mode, seeded
from runner.common.dtypes import DTYPES
from runner.common.errors import HydromelError


def audit_module(
    module: nn.Module,
    examples: Sequence[Example],
    collate: Collate[Example],
    *,
    lengths: Callable[[Any], int] = len,
    left_padding: bool = False,
    split_output: Splitter[Output] | None = None,
    loss: LossFunction[Output, Example] | None = None,
    decode: Splitter[Output] | None = None,
    metric: Callable[[], ExampleMetric[Output, Example]] | None = None,
    modes: Sequence[Mode] = ("eval", "train"),
    arithmetics: Sequence[Arithmetic] = ("float32",),
    nan_gradients: bool = False,
    causal: bool = False,
    name: str | None = None,
    seed: int = 1,
) -> AuditReport:
    """Check that a module's result for an example does not depend on the other examples of its batch or on padding.

    Args:
        module: a float64 copy is audited, and the module itself stays as it is.
        examples: at least two examples of different lengths; preferably some of equal length, and an empty one if the
            module accepts it.
        collate: examples, `Padding` -> the module's arguments: a tensor, a tuple of tensors, or a dict by name.
            It must pad as `Padding` says, for example with `padding.stack(rows)` and `padding.mask(lengths)`.
        lengths: example -> its number of tokens.
        left_padding: padding comes before the tokens.
        split_output: output, lengths -> one tensor per example, real positions only. Without it, every tensor of the
            output is split by its shape: (B, T, *), (T, B, *), (B, C, T), (N, *), (B, *), ...
        loss: output, examples -> `Loss(sum, count)`, (B,) losses of single examples, or a plain mean (which must then
            not change when an update is split).
        decode: output, lengths -> one tensor of predictions per example.
        metric: factory of an object with `update(output, examples)` and `compute() -> dict`; its values must not
            depend on how the examples are split into batches.
        modes: modes of the module; torch's own modules use different kernels in each.
        arithmetics: arithmetics besides float64: float32, bf16, fp16. Their tolerance is the error of single-example
            runs.
        nan_gradients: require finite gradients where padding holds NaN. Most correct modules fail this, since the
            gradient of a weight is 0 times the NaN of its input; a module that fills padding before each weight passes.
        causal: check too that a position's output does not depend on later positions, as in a language model. Examples
            must be tensors or lists of tokens, and outputs have a vector per token.
        name: the report's title; None: the module's class.
        seed: seed of the random choice of examples.

    Returns:
        A report; call its `raise_if_failed()` in tests.

    Raises:
        HydromelError: fewer than two examples, an unknown mode or arithmetic, no `torch.nn.Module`, an output that
            cannot be split into examples, or a given function that fails or returns the wrong type.
    """
    _check(module, examples, modes, arithmetics)
    if metric is not None and not callable(metric):
        raise HydromelError(f"metric is a {type(metric).__name__}; pass a function that creates one, such as its class")
    title = name or type(module).__name__
    numbers = np.array([lengths(example) for example in examples], dtype=np.int64)
    subject = ModuleSubject(title, module, list(examples), collate, numbers, left_padding, split_output, loss, decode)
    subject.check_collate()
    exact = subject.cast("float64")
    report = AuditReport(title)
    # Dropout layers draw random numbers in train mode even at rate 0; the caller's generator must not change.
    with seeded(seed):
        for mode in modes:
            with in_mode(exact.module, mode):
                reference = SingleReference(exact, torch.float64)
                report.verdicts += Auditor(exact, mode, reference, seed, nan_gradients).verdicts()
                if causal:
                    report.verdicts.append(causality_verdict(exact, reference, mode))
                for arithmetic in arithmetics:
                    with in_mode((coarse := subject.cast(arithmetic)).module, mode):
                        measured = SingleReference(coarse, DTYPES[arithmetic], exact=reference)
                        report.verdicts.append(arithmetic_verdict(coarse, measured, arithmetic, mode, seed))
        if metric is not None:
            with in_mode(exact.module, "eval"):
                verdict = metric_verdict(title, lambda rows: exact.figures(metric(), rows), range(len(examples)))
                report.verdicts.append(verdict)
        exact.module.train()
        report.verdicts.append(dropout_verdict(exact, int(np.argmax(exact.lengths))))
    return report


def _check(module: object, examples: Sequence[object], modes: Sequence[str], arithmetics: Sequence[str]) -> None:
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise HydromelError(f"module is a {type(module).__name__}; pass a torch.nn.Module that is not scripted")
    if len(examples) < 2:
        raise HydromelError(f"an audit needs at least two examples, got {len(examples)}")
    for name, given, allowed in (("modes", modes, get_args(Mode)), ("arithmetics", arithmetics, tuple(DTYPES))):
        if isinstance(given, str) or not set(given) <= set(allowed) or (name == "modes" and not given):
            raise HydromelError(f"{name}={given!r}; pass a tuple of {', '.join(allowed)}")
