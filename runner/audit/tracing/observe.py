"""One forward and backward pass over some examples: its outputs, its gradients, and the output of each module."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from runner.audit.tracing.alignment import Geometry, Part, parts
from runner.audit.tracing.module_state import unchanged
from runner.common.arrays import BoolArray, IntArray
from runner.common.errors import HydromelError
from runner.interfaces import Loss
from runner.ragged.ragged import Ragged

Key = tuple[str, int, int]  # module, its call, part of its outputs or inputs
Fill = Literal["neutral", "other", "huge", "nan"]
Side = Literal["outputs", "inputs"]
NO_GRADIENT = "cudnn RNN backward can only be called in training mode"  # on GPUs in eval mode: compare only outputs
HUGE = 1e30  # finite in float64, and so is its square


class AdapterError(HydromelError):
    """An error in the arguments of the audit (collate, loss, ...), which says nothing about the module."""


@dataclass(frozen=True)
class Setting:
    """The padding of one run. Probes change one field at a time."""

    widen: int = 1  # padded width, as a multiple of what the examples need
    fill: Fill = "neutral"  # content of the padding: the layout's own, other finite values, 1e30 or NaN


@dataclass(frozen=True)
class RunOutput:
    """A subject's results for some examples, in the requested order: an output and a prediction for each.

    The loss is a sum and the number of its terms; the number is 0 if the loss is already a mean.
    """

    outputs: list[Tensor]
    loss: Loss | None = None
    predictions: list[Tensor] | None = None


class Subject(Protocol):
    """An audited module together with the code that lays examples out for it."""

    name: str

    @property
    def module(self) -> nn.Module: ...

    @property
    def lengths(self) -> IntArray:
        """(R,) number of tokens of each example."""

    @property
    def is_even(self) -> BoolArray:
        """(R,) false for examples whose texts differ in length: in a padded layout they hold padding even alone."""

    @property
    def has_padding(self) -> bool:
        """True if a batch of examples of different lengths holds padding."""

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        """Return the layout of some examples in one forward pass."""

    def split(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Return the rows of each forward pass that `run` makes of `rows`, in order."""

    def run(self, rows: Sequence[int], setting: Setting) -> RunOutput:
        """Run the rows, keeping the graph that gradients need."""


@dataclass
class Observation:
    """The results of a run, or the error that ended it."""

    outputs: list[Tensor] = field(default_factory=list)  # as in `RunOutput`, detached, like predictions and loss
    predictions: list[Tensor] | None = None
    # gradients of a weighted sum of the outputs (`weights_like`)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    loss: Loss | None = None
    loss_gradients: dict[str, Tensor] = field(default_factory=dict)  # gradients of the loss
    error: Exception | None = None
    failed_in: str = ""  # the innermost module in which the error was raised


@dataclass(frozen=True)
class Record:
    """A part of a module's outputs (or inputs): the `part`-th tensor of the `call`-th call of `module`."""

    module: str
    call: int
    part: int
    value: Part

    @property
    def key(self) -> Key:
        return self.module, self.call, self.part


def observe(
    subject: Subject, rows: Sequence[int], setting: Setting, keep_state: bool = False, loss: bool = False
) -> Observation:
    """Run `rows` in one batch, with gradients of the `loss` on request; an error of the module is an observation too.

    Changes that the run makes to the module are undone, unless `keep_state` is true.
    """
    with nullcontext() if keep_state else unchanged(subject.module):
        try:
            return _observe_output(subject.module, subject.run(rows, setting), loss)
        except AdapterError:
            raise
        except Exception as error:  # any error of the module is a result of the audit
            return Observation(error=error, failed_in=_innermost(error, subject.module))


def trace(
    subject: Subject,
    rows: Sequence[int],
    setting: Setting,
    only: str | None = None,
    side: Side = "outputs",
    keep_state: bool = False,
) -> list[Record]:
    """Record the outputs (or inputs) of every module, or `only` one, in execution order; an error ends the records."""
    records: list[Record] = []
    calls: dict[str, int] = {}

    def keep(name: str, value: object) -> None:
        call = calls[name] = calls.get(name, -1) + 1
        records.extend(Record(name, call, place, _copied(part)) for place, part in enumerate(parts(value)))

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        if side == "outputs":
            return module.register_forward_hook(lambda _, __, output: keep(name, output))
        return module.register_forward_pre_hook(lambda _, args, kwargs: keep(name, (args, kwargs)), with_kwargs=True)

    with nullcontext() if keep_state else unchanged(subject.module), ExitStack() as hooks, torch.no_grad():
        for name, module in subject.module.named_modules():
            if only is None or name == only:
                hooks.enter_context(watch(name, module))
        with suppress(Exception):  # `observe` reports it
            subject.run(rows, setting)
    return records


@dataclass(frozen=True)
class Pass:
    """The records of one forward pass, in execution order; a run has several where it is split into micro-batches."""

    rows: tuple[int, ...]
    geometry: Geometry
    records: dict[Key, Record]


def passes(
    subject: Subject, rows: Sequence[int], setting: Setting, only: str | None = None, side: Side = "outputs"
) -> list[Pass]:
    """Run some rows and return the records of each forward pass, of all modules or `only` one.

    Passes are distinguished by counting calls, so a module that is not called equally often in each pass is left out.
    """
    groups = subject.split(rows)
    records = trace(subject, rows, setting, only, side)
    calls = {record.module: record.call + 1 for record in records}
    by_pass: list[dict[Key, Record]] = [{} for _ in groups]
    for record in records:
        calls_per_pass, rest = divmod(calls[record.module], len(groups))
        if rest == 0:
            number, call = divmod(record.call, calls_per_pass)
            by_pass[number][record.module, call, record.part] = record
    pairs = zip(groups, by_pass, strict=True)
    return [Pass(tuple(group), subject.geometry(group, setting), pass_records) for group, pass_records in pairs]


def weights_like(output: Tensor) -> Tensor:
    """Return weights that rise from 1 to 2, in the output's shape.

    With equal weights, the gradients of different outputs could agree by symmetry.
    """
    return torch.linspace(1.0, 2.0, max(1, output.numel()), dtype=torch.float64)[: output.numel()].view(output.shape)


def _observe_output(module: nn.Module, output: RunOutput, loss: bool) -> Observation:
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    observation = Observation([value.detach().clone() for value in output.outputs], output.predictions)
    weighted = [
        (value.masked_fill(value.isinf(), 0.0) * weights_like(value).to(value)).sum()
        for value in output.outputs
        if value.is_floating_point()
    ]
    if weighted:
        observation.gradients = _gradients(torch.stack(weighted).sum(), named, keep=loss and output.loss is not None)
    if output.loss is not None:
        observation.loss = replace(output.loss, total=output.loss.total.detach())
        if loss:
            observation.loss_gradients = _gradients(output.loss.total, named, keep=False)
    return observation


def _gradients(total: Tensor, named: dict[str, nn.Parameter], keep: bool) -> dict[str, Tensor]:
    """Return the gradients of `total`, keeping the graph if asked; none where cuDNN cannot compute them."""
    zeros = {name: torch.zeros_like(parameter) for name, parameter in named.items()}
    if not named or not total.requires_grad:  # `total` depends on no parameter, for example where all rows are empty
        return zeros
    try:
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True, retain_graph=keep)
    except RuntimeError as error:
        if NO_GRADIENT not in str(error):
            raise
        return {}
    return zeros | {
        name: grad.detach().to_dense() for name, grad in zip(named, gradients, strict=True) if grad is not None
    }


def _innermost(error: Exception, module: nn.Module) -> str:
    """Return the name of the innermost module of the traceback (hooks would make torch leave its fused paths)."""
    names = {id(submodule): name for name, submodule in module.named_modules()}
    innermost, frame = "", error.__traceback__
    while frame is not None:
        innermost = names.get(id(frame.tb_frame.f_locals.get("self")), innermost)
        frame = frame.tb_next
    return innermost


def _copied(part: Part) -> Part:
    """Return a copy, since later modules may write in place."""
    if isinstance(part, Tensor):
        return part.detach().clone()
    return part.with_values(part.values.detach().clone()) if isinstance(part, Ragged) else part
