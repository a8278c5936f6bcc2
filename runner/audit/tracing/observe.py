"""One forward and backward pass over some examples: what it answers, its gradients, and what each module said."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from runner.audit.tracing.alignment import Geometry, Part, parts
from runner.audit.tracing.module_state import unchanged
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.interfaces import Loss
from runner.ragged.ragged import Ragged

Fill = Literal["neutral", "other", "huge", "nan"]
Side = Literal["outputs", "inputs"]
NO_GRADIENT = "cudnn RNN backward can only be called in training mode"  # on GPUs, in eval mode: outputs alone then
HUGE = 1e30  # finite, and its square is too in float64


class AdapterError(HydromelError):
    """What the module's user gave to the audit does not fit: no finding about the module."""


@dataclass(frozen=True)
class Setting:
    """How the examples of one run are laid out. Probes change one field at a time.

    Attributes:
        widen: padded width, as a multiple of what the examples need.
        fill: what stands in padding: what the layout puts there (`neutral`), other finite content, HUGE, or NaN.
    """

    widen: int = 1
    fill: Fill = "neutral"


@dataclass(frozen=True)
class Answers:
    """What a subject says of some examples, in the order in which they were asked for.

    Attributes:
        outputs: one tensor an example.
        loss: summed and counted; a plain mean has count 0; None where the subject has none.
        predictions: one tensor of decoded answers an example, or None.
    """

    outputs: list[Tensor]
    loss: Loss | None = None
    predictions: list[Tensor] | None = None


class Subject(Protocol):
    """What is audited: a module, and how examples are put before it."""

    @property
    def name(self) -> str: ...

    @property
    def module(self) -> nn.Module: ...

    @property
    def lengths(self) -> IntArray:
        """(R,) tokens of all examples."""
        ...

    @property
    def has_padding(self) -> bool:
        """Whether uneven examples together hold padding at all."""
        ...

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry: ...

    def cut(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """The forward passes that `answer` makes of them, in order."""
        ...

    def answer(self, rows: Sequence[int], setting: Setting) -> Answers:
        """One forward pass, with the graph that gradients need."""
        ...


@dataclass
class Observation:
    """A run, or the error that it ended with.

    Attributes:
        outputs, predictions: as in `Answers`, detached.
        gradients: of each parameter, of a sum of the outputs in which every number weighs differently.
        loss: the summed loss, ().
        loss_gradients: of each parameter, of the loss.
        error: what was raised instead, and `failed_in`: the innermost module in which it was.
    """

    outputs: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    loss: Loss | None = None
    loss_gradients: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None
    failed_in: str = ""


@dataclass(frozen=True)
class Record:
    """A part of what a module returned (or was given): the `call`-th call of `module`, its `part`-th tensor."""

    module: str
    call: int
    part: int
    value: Part

    @property
    def key(self) -> tuple[str, int, int]:
        return self.module, self.call, self.part


def observe(
    subject: Subject, rows: Sequence[int], setting: Setting, keep_state: bool = False, loss: bool = False
) -> Observation:
    """Run `rows` together; an error of the module is an observation too.

    Args:
        keep_state: what the run leaves in the module stays there; otherwise it is taken back.
        loss: the loss's gradients are asked for, too.
    """
    with nullcontext() if keep_state else unchanged(subject.module):
        try:
            return _observed(subject.module, subject.answer(rows, setting), loss)
        except AdapterError:
            raise
        except Exception as error:  # whatever a module raises for such rows is what the audit has to tell
            return Observation(error=error, failed_in=_innermost(error, subject.module))


def trace(
    subject: Subject,
    rows: Sequence[int],
    setting: Setting,
    only: str | None = None,
    of: Side = "outputs",
    keep_state: bool = False,
) -> list[Record]:
    """What every module (or `only` one) returned, or was given; in that order; up to an error, if there is one."""
    records: list[Record] = []
    calls: dict[str, int] = {}

    def keep(name: str, value: Any) -> None:
        call = calls[name] = calls.get(name, -1) + 1
        records.extend(Record(name, call, place, _kept(part)) for place, part in enumerate(parts(value)))

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        if of == "outputs":
            return module.register_forward_hook(lambda _, __, output: keep(name, output))
        return module.register_forward_pre_hook(lambda _, args, kwargs: keep(name, (args, kwargs)), with_kwargs=True)

    with nullcontext() if keep_state else unchanged(subject.module), ExitStack() as hooks, torch.no_grad():
        for name, module in subject.module.named_modules():
            if only is None or name == only:
                hooks.callback(watch(name, module).remove)
        with suppress(Exception):  # `observe` has told it
            subject.answer(rows, setting)
    return records


def weights_like(output: Tensor) -> Tensor:
    """(…) 1 to 2, rising, so that gradients cannot agree by symmetry."""
    return torch.linspace(1.0, 2.0, max(1, output.numel()), dtype=torch.float64)[: output.numel()].view(output.shape)


def _observed(module: nn.Module, answers: Answers, loss: bool) -> Observation:
    named = {name: one for name, one in module.named_parameters() if one.requires_grad}
    seen = Observation(
        outputs=[one.detach().clone() for one in answers.outputs],
        predictions=answers.predictions,
        loss=None if answers.loss is None else replace(answers.loss, total=answers.loss.total.detach()),
    )
    weighted = [
        (one.masked_fill(one.isinf(), 0.0) * weights_like(one).to(one)).sum()
        for one in answers.outputs
        if one.is_floating_point()
    ]
    if weighted:
        seen.gradients = _gradients(torch.stack(weighted).sum(), named, keep=loss and answers.loss is not None)
    if loss and answers.loss is not None:
        seen.loss_gradients = _gradients(answers.loss.total, named, keep=False)
    return seen


def _gradients(total: Tensor, named: dict[str, nn.Parameter], keep: bool) -> dict[str, Tensor]:
    if not named or not total.requires_grad:  # nothing depends on a parameter, as where all rows are empty
        return {name: torch.zeros_like(one) for name, one in named.items()}
    try:
        found = torch.autograd.grad(total, list(named.values()), allow_unused=True, retain_graph=keep)
    except RuntimeError as error:
        if NO_GRADIENT not in str(error):
            raise
        return {}
    return {
        name: torch.zeros_like(one) if grad is None else grad.detach()
        for (name, one), grad in zip(named.items(), found, strict=True)
    }


def _innermost(error: Exception, module: nn.Module) -> str:
    """The innermost module of the traceback, by name. (With hooks, torch would leave its fused paths.)"""
    names = {id(one): name for name, one in module.named_modules()}
    found, frame = "", error.__traceback__
    while frame is not None:
        found = names.get(id(frame.tb_frame.f_locals.get("self")), found)
        frame = frame.tb_next
    return found


def _kept(part: Part) -> Part:
    """A copy, since what comes after may write in place."""
    if isinstance(part, Tensor):
        return part.detach().clone()
    return part.with_values(part.values.detach().clone()) if isinstance(part, Ragged) else part
