"""The arithmetic in which a module computes, whatever the dtype of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from runner.audit.tracing.module_state import unchanged
from runner.audit.tracing.observe import Setting, Subject
from runner.compat.torch import DispatchMode, tree_leaves


class _Watch(DispatchMode):
    """Records the narrowest arithmetic to which any operation reduces float64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.narrowest = torch.float64

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if not any(tensor.dtype == torch.float64 for tensor in _numbers((args, kwargs))):
            return result  # constants may be created in any arithmetic
        for tensor in _numbers(result):
            if torch.finfo(tensor.dtype).eps > torch.finfo(self.narrowest).eps:
                self.narrowest = tensor.dtype
        return result


def _numbers(values: object) -> list[Tensor]:
    """Return the tensors of floats."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def narrowest(subject: Subject, row: int) -> torch.dtype:
    """Return the narrowest arithmetic used for one example: many models have a float32 softmax or norm inside."""
    with unchanged(subject.module), torch.no_grad(), _Watch() as watch:
        try:
            subject.run([row], Setting())
        except Exception:  # the checks report it
            return torch.float64
    narrowest_dtype: torch.dtype = watch.narrowest
    return narrowest_dtype
