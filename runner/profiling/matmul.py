"""How float32 matrices are multiplied: by which library on a CPU, and how exactly on a GPU."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

from runner.common.errors import HydromelError
from runner.config.schema import Matmul

log = logging.getLogger(__name__)
_ROUNDING = 2.0**-24  # of float32, to nearest
_SHAPES = ((64, 512, 64), (700, 200, 1000), (33, 4096, 17))


def choose_matmul(which: Matmul) -> Matmul:
    """Set the library that multiplies float32 matrices, and return the one that this process now uses.

    `torch` leaves the choice to torch. `onednn` is up to twice as fast on some CPUs. `tf32` rounds a GPU's inputs to 10
    bits, which torch would otherwise do unasked in cuDNN's convolutions and recurrent layers.

    torch lets oneDNN multiply float32 only under a name that also permits it to round inputs to bfloat16, which it does
    where a processor has units for that (AMX). So products are tried first, against float64. A processor without
    AVX-512 goes on as before under that name: the products then agree bit for bit, `torch` is returned and a warning
    says so.

    Raises:
        HydromelError: this processor's products are coarser than float32's.
    """
    on_gpu: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]
    for kind in on_gpu:
        kind.fp32_precision = "tf32" if which == "tf32" else "ieee"
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    products.fp32_precision = "none"
    if which != "onednn":
        return which
    matrices = [_matrices(*shape) for shape in _SHAPES]
    before = [left @ right for left, right in matrices]
    products.fp32_precision = "bf16"
    after = [left @ right for left, right in matrices]
    error = max(_error(left, right, product) for (left, right), product in zip(matrices, after, strict=True))
    if error > 32 * _ROUNDING:
        products.fp32_precision = "none"
        raise HydromelError(
            f"matmul=onednn: this processor's products have a relative error of {error:.1e}, coarser than float32's; "
            "use matmul=torch"
        )
    if all(map(torch.equal, before, after)):
        products.fp32_precision = "none"
        _warn_of_no_effect()
        return "torch"
    return which


@cache
def _warn_of_no_effect() -> None:
    """Say once that the option does nothing here."""
    capability = torch.backends.cpu.get_cpu_capability()
    log.warning(
        "matmul=onednn has no effect on this processor (%s): matrices are multiplied as by matmul=torch", capability
    )


def _matrices(rows: int, inner: int, columns: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)


def _error(left: Tensor, right: Tensor, product: Tensor) -> float:
    """Return the relative error of a product, by its norm; that of float32 is some 4 to 8 roundings."""
    exact = left.double() @ right.double()
    return float((product.double() - exact).norm() / exact.norm())
