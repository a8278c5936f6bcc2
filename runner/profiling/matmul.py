"""How float32 matrices are multiplied: by which library on a CPU, and how exactly on a GPU."""

from __future__ import annotations

from typing import Any

import torch

from runner.common.errors import HydromelError
from runner.config.schema import Matmul

_ROUNDING = 2.0**-24  # of float32, to nearest
_SHAPES = ((64, 512, 64), (700, 200, 1000), (33, 4096, 17))


def choose_matmul(which: Matmul) -> None:
    """Have torch multiply by its own choice; on a CPU by oneDNN, up to twice as fast on some processors; or on a GPU in
    TF32, which rounds inputs to 10 bits. Torch would take TF32 for cuDNN's convolutions and recurrent layers unasked.

    torch lets oneDNN multiply float32 only under a name that also permits it to round inputs to bfloat16, which it does
    where a processor has units for that (AMX). So products are tried first, against float64.

    Raises:
        HydromelError: this processor's products are coarser than float32's.
    """
    on_gpu: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]
    for kind in on_gpu:
        kind.fp32_precision = "tf32" if which == "tf32" else "ieee"
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    products.fp32_precision = "bf16" if which == "onednn" else "none"
    if which != "onednn":
        return
    error = max(_error(*shape) for shape in _SHAPES)
    if error > 32 * _ROUNDING:
        products.fp32_precision = "none"
        raise HydromelError(
            f"matmul=onednn: this processor's products have a relative error of {error:.1e}, coarser than float32's; "
            "use matmul=torch"
        )


def _error(rows: int, inner: int, columns: int) -> float:
    """Of a product, by its norm; that of float32 is some 4 to 8 roundings."""
    generator = torch.Generator().manual_seed(rows)
    left, right = torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).norm() / exact.norm())
