"""Private APIs of torch: dispatch modes, trees of tensors, storage identity, tensor versions, weights, and more."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from runner.compat.private import private_api

CHECKED = "2.13.0"
Steps = TypeVar("Steps", Tensor, tuple[Tensor, ...])

with private_api("torch", CHECKED):
    from torch._ops import OpOverload
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves as tree_leaves  # re-exported
    from torch.utils.flop_counter import _FlopCounterMode

    CUDNN_RNN: object = torch.ops.aten._cudnn_rnn
    CUDNN_RNN_BACKWARD: object = torch.ops.aten._cudnn_rnn_backward
    CPU_ATTENTION: object = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    CPU_ATTENTION_BACKWARD: object = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

Args = ParamSpec("Args")
Result = TypeVar("Result")
Operator = OpOverload[..., object]  # an operation as a dispatch mode sees it


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context in which the method `__torch_dispatch__` of a subclass sees every operation on tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # type: ignore[no-untyped-call]
        _unwrap_dispatch(cls)


def _unwrap_dispatch(mode: type[TorchDispatchMode]) -> None:
    """Let the operations that a mode sees run without torch's compiler being imported (see `without_compiler`)."""
    mode.__torch_dispatch__ = inspect.unwrap(mode.__torch_dispatch__)  # type: ignore[method-assign]


def flop_counter(formulas: Mapping[object, Callable[..., int]]) -> FlopCounterMode:
    """Return a counter of floating-point operations with further `formulas` by operator, which prints nothing."""
    _unwrap_dispatch(_FlopCounterMode)
    return FlopCounterMode(display=False, custom_mapping={**formulas})


def content_version(tensor: Tensor) -> int:
    """Return a number that grows whenever the tensor, or another one that shares its memory, is changed in place."""
    with private_api("torch", CHECKED):
        return tensor._version


def storage_key(storage: torch.UntypedStorage) -> int:
    """Return a number that is equal for two existing storages only if they are the same memory, on any device."""
    with private_api("torch", CHECKED):
        key: int = storage._cdata
    return key


def cell_weights(cell: nn.RNNBase) -> list[Tensor]:
    """Return the weights that a recurrent module computes with now: its own, or those of `with_cell_weights`."""
    with private_api("torch", CHECKED):
        return [weight for weight in cell._flat_weights if weight is not None]


@contextmanager
def with_cell_weights(cell: nn.RNNBase, weights: Sequence[Tensor]) -> Iterator[None]:
    """Let a recurrent module compute with other weights, in the order of `cell_weights`, within the context."""
    with private_api("torch", CHECKED):
        own = cell._flat_weights
    cell._flat_weights = [*weights]
    try:
        yield
    finally:
        cell._flat_weights = own


def without_compiler(method: Callable[Args, Result]) -> Callable[Args, Result]:
    """Return a method of torch's optimisers as it runs outside of torch.compile, and without gradients.

    torch wraps these methods so that its compiler leaves them out. The wrapper imports the compiler (`torch._dynamo`),
    which takes a second or more even if nothing is compiled.
    """
    with private_api("torch", CHECKED):
        wrapped: Callable[Args, Result] = inspect.unwrap(method)
        if wrapped is method:
            raise AttributeError(f"{method.__qualname__}.__wrapped__")
    return torch.no_grad()(wrapped)


class WithoutCompiler(Optimizer):
    """A base for optimisers that do not import torch's compiler; `step` is left to the subclasses."""

    add_param_group = without_compiler(Optimizer.add_param_group)
    load_state_dict = without_compiler(Optimizer.load_state_dict)
    state_dict = without_compiler(Optimizer.state_dict)
    zero_grad = without_compiler(Optimizer.zero_grad)


def scan(
    step: Callable[[Tensor, Steps], tuple[Tensor, Tensor]], start: Tensor, steps: Steps, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Apply `step` to a state and each item of `steps` in turn: return the last state and the stacked outputs.

    `step` returns the next state and an output. In a program that `torch.export` traces it stays a loop.
    """
    if not torch.compiler.is_exporting():  # torch would compile the loop
        first = steps if isinstance(steps, Tensor) else steps[0]
        order, found = range(len(first)), dict[int, Tensor]()
        for place in reversed(order) if reverse else order:
            item = steps[place] if isinstance(steps, Tensor) else tuple(part[place] for part in steps)
            start, found[place] = step(start, item)
        return start, torch.stack([found[place] for place in order])
    with private_api("torch", CHECKED):
        from torch._higher_order_ops import scan as torch_scan  # takes long to import

    state, outputs = torch_scan(step, start, steps, reverse=reverse)
    return state, outputs
