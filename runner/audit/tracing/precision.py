"""In which arithmetic a module computes, whatever its parameters are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runner.audit.tracing.module_state import unchanged
from runner.audit.tracing.observe import Setting, Subject


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the narrowest arithmetic to which an operation takes float64 numbers down."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.narrowest = torch.float64

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(one.dtype == torch.float64 for one in _numbers((args, kwargs))):
            return result  # constants may be made in any arithmetic
        for one in _numbers(result):
            if torch.finfo(one.dtype).eps > torch.finfo(self.narrowest).eps:
                self.narrowest = one.dtype
        return result


def _numbers(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor) and one.is_floating_point()]


def narrowest(subject: Subject, row: int) -> torch.dtype:
    """The narrowest arithmetic in which one example is computed; many models have a float32 softmax or norm inside."""
    with unchanged(subject.module), torch.no_grad(), _Watch() as watch:
        try:
            subject.answer([row], Setting())
        except Exception:  # the checks will tell it
            return torch.float64
    found: torch.dtype = watch.narrowest
    return found
