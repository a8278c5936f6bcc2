"""Types for torch's custom autograd functions, which torch itself leaves untyped."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Context(Protocol):
    """The object that `forward` fills for `backward`; a function that keeps more than tensors extends it."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `backward`, which reads them as `saved_tensors`."""


def apply(function: type[torch.autograd.Function], *inputs: object) -> Tensor:
    """Return the output of `function` for `inputs`; its gradient is computed by the function's own `backward`."""
    output: Tensor = function.apply(*inputs)  # type: ignore[no-untyped-call]
    return output
