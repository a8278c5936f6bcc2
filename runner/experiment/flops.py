"""How much of the device's arithmetic training used: floating-point operations of matrix products, counted and timed.

Only products of matrices, convolutions and attention are counted, two operations for each multiplication and addition,
as torch's `FlopCounterMode` does; look-ups, sums and activations are none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from runner.compat.torch import CPU_ATTENTION, CPU_ATTENTION_BACKWARD, CUDNN_RNN, CUDNN_RNN_BACKWARD
from runner.interfaces import START
from runner.ragged.batch import Batch
from runner.training.loop import backward
from runner.training.state import Training

Shape = Sequence[int]
_SAMPLED = 8  # micro-batches in which operations are counted
_SMALLEST, _LARGEST = 128, 8192  # rows and columns of the matrices that the device is timed with
_PRODUCT_SECONDS, _ALL_SECONDS = 0.002, 0.2  # that one product takes at least, and all together about


def arithmetic(t: Training) -> dict[str, float | str] | None:
    """The `arithmetic` section of result.json, found after training; None where no update was timed.

    Parameters, gradients and the state of random numbers are afterwards as before.
    """
    timed = t.costs.by_length.values()
    places, seconds = (sum(one[key] for one in timed) for key in ("places", "seconds"))
    if not places or not seconds:
        return None
    dtype = torch.bfloat16 if t.bf16 else next(t.model.parameters()).dtype
    per_place = flops_per_place(t)
    achieved = per_place * places / seconds
    # under autocast parts of a model compute in float32, and on some processors those are the faster ones
    possible = max(
        device_flops_per_s(t.clock.device, kind, torch.get_num_threads(), _products_of_floats())
        for kind in {dtype, next(t.model.parameters()).dtype}
    )
    return {
        "flops_per_place": per_place,
        "achieved_flops_per_s": achieved,
        "device_flops_per_s": possible,
        "share": achieved / possible,
        "dtype": str(dtype).removeprefix("torch."),
    }


def flops_per_place(t: Training) -> float:
    """Operations of forward and backward, of some micro-batches spread over an epoch, for each place in memory."""
    t.model.train()
    devices = [t.clock.device] if t.clock.device.type == "cuda" else []
    counter, places = FlopCounterMode(display=False, custom_mapping=FORMULAS), 0
    with torch.random.fork_rng(devices), counter:
        for batch in _sample(t):
            places += batch.real_tokens + batch.padded_tokens
            backward(t.model, t.head, [batch], t.task.count(batch), START, t.bf16, lambda phase: None)
            t.optimizer.zero_grad()
    return counter.get_total_flops() / max(1, places)


def _sample(t: Training) -> Iterator[Batch]:
    """A micro-batch of each of some updates, which are spread evenly over the first epoch."""
    updates = t.batching.updates(t.train.rows.host_lengths, t.seed, 0)
    for place in np.unique(np.linspace(0, len(updates) - 1, _SAMPLED).astype(int)).tolist():
        micro_batches = list(t.batching.micro_batches(t.train, updates[place]))
        yield micro_batches[place % len(micro_batches)]


def _products_of_floats() -> str:
    """How float32 matrices are multiplied (`runner.profiling.matmul`), on which the rate of the device depends."""
    kinds: tuple[Any, ...] = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    return ", ".join(str(kind.fp32_precision) for kind in kinds)


@cache
def device_flops_per_s(device: torch.device, dtype: torch.dtype, threads: int, precision: str) -> float:
    """The best rate of several products of square matrices, large enough to take some milliseconds each.

    Args:
        threads: of the CPU, as they are set; with `precision`, only to tell one measurement from another.
    """
    size = _SMALLEST
    while (seconds := _product_seconds(size, device, dtype, 1)) < _PRODUCT_SECONDS and size < _LARGEST:
        size *= 2
    best = _product_seconds(size, device, dtype, max(3, math.ceil(_ALL_SECONDS / seconds)))
    return 2 * size**3 / best


def _product_seconds(size: int, device: torch.device, dtype: torch.dtype, times: int) -> float:
    """The shortest of so many products, after one that is not counted."""
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    result = left @ right
    seconds = []
    for _ in range(times):
        begin = _now(device)
        torch.mm(left, right, out=result)
        seconds.append(_now(device) - begin)
    return min(seconds)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _matrices(weights: Sequence[Shape]) -> int:
    """Numbers of those weights that are matrices."""
    return sum(math.prod(shape) for shape in weights if len(shape) == 2)


def _onednn_rnn(input: Shape, *others: Any, out_shape: object) -> int:
    """mkldnn_rnn_layer: of (T, B, D), and four weights; one direction of one layer."""
    return 2 * math.prod(input[:-1]) * _matrices(others[:4])


def _onednn_rnn_backward(input: Shape, *others: Any, out_shape: object) -> int:
    """The gradients of inputs and of weights, each as much as forward."""
    return 2 * _onednn_rnn(input, *others, out_shape=out_shape)


def _cudnn_rnn(input: Shape, weights: Sequence[Shape], *others: object, out_shape: object) -> int:
    """_cudnn_rnn: of (T, B, D) or packed (N, D), and the weights of all layers and directions."""
    return 2 * math.prod(input[:-1]) * _matrices(weights)


def _cudnn_rnn_backward(input: Shape, weights: Sequence[Shape], *others: object, out_shape: object) -> int:
    return 2 * _cudnn_rnn(input, weights, out_shape=out_shape)


def _attention(query: Shape, key: Shape, value: Shape, *others: object, out_shape: object, **options: object) -> int:
    """Products of queries and keys, and of weights and values: (B, H, T, d), (B, H, K, d), (B, H, K, e)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *others: object, out_shape: object, **options: object
) -> int:
    """The scores again, and the gradients of weights, values, queries and keys (Dao et al. 2022, algorithm 4)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def _added_product(sum_: Shape, left: Shape, right: Shape, out_shape: object, **options: object) -> int:
    """addmm_: of (M, K) and (K, N)."""
    return 2 * math.prod(left) * right[-1]


_ATEN: Any = torch.ops.aten
# of kernels that torch's own counter does not know: shapes of the arguments -> operations
FORMULAS = {
    _ATEN.addmm_: _added_product,
    _ATEN.mkldnn_rnn_layer: _onednn_rnn,
    _ATEN.mkldnn_rnn_layer_backward: _onednn_rnn_backward,
    CUDNN_RNN: _cudnn_rnn,
    CUDNN_RNN_BACKWARD: _cudnn_rnn_backward,
    CPU_ATTENTION: _attention,
    CPU_ATTENTION_BACKWARD: _attention_backward,
}
