"""The multiplication of float32 matrices: the library on a CPU, and the precision on a GPU."""

from __future__ import annotations

import logging
from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor

from runner.common.errors import HydromelError
from runner.config.schema import Matmul

log = logging.getLogger(__name__)
_ROUNDING = 2.0**-24  # relative error of rounding to the nearest float32
_SHAPES = ((64, 512, 64), (700, 200, 1000), (33, 4096, 17))  # rows, inner size and columns of the products tried


class _Backend(Protocol):
    """A setting of torch.backends."""

    fp32_precision: str


def choose_matmul(which: Matmul) -> Matmul:
    """Set the library that multiplies float32 matrices, and return the one that this process now uses.

    `torch` leaves the choice to torch. `onednn` is up to twice as fast on some CPUs. `tf32` rounds a GPU's inputs to 10
    bits; without it torch would do so by default in cuDNN's convolutions and recurrent layers.

    Raises:
        HydromelError: this processor's products are coarser than float32's.
    """
    on_gpu: tuple[_Backend, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined, assignment]
    for backend in on_gpu:
        backend.fp32_precision = "tf32" if which == "tf32" else "ieee"
    products: _Backend = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    products.fp32_precision = "none"
    if which != "onednn":
        return which
    # torch lets oneDNN multiply float32 only under the name "bf16", which also permits rounding inputs to bfloat16, as
    # oneDNN does if the processor has units for that (AMX). So products are compared with float64 first. Without
    # AVX-512 the name has no effect: products agree bit for bit, and `torch` is returned with a warning.
    random = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    matrices = [(random(rows, inner), random(inner, columns)) for rows, inner, columns in _SHAPES]
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
    capability = torch.backends.cpu.get_cpu_capability()
    log.warning(f"matmul=onednn has no effect on this processor ({capability}): the products are those of matmul=torch")


def _error(left: Tensor, right: Tensor, product: Tensor) -> float:
    """Return the relative error of a product, by its norm; float32 has about 4 to 8 roundings."""
    exact = left.double() @ right.double()
    return float((product.double() - exact).norm() / exact.norm())


def float32_precision() -> str:
    """Return torch's settings for products of float32 matrices, on a CPU and on a GPU."""
    backends: tuple[_Backend, ...] = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    return ", ".join(backend.fp32_precision for backend in backends)
