"""The share of the device's arithmetic that training used: floating-point operations of matrix products per second.

Only products of matrices, convolutions and attention are counted, with two operations for each multiplication and
addition, like torch's `FlopCounterMode`; look-ups, sums and activations count nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import torch

from runner.common.records import ArithmeticRecord
from runner.compat.torch import CPU_ATTENTION, CPU_ATTENTION_BACKWARD, CUDNN_RNN, CUDNN_RNN_BACKWARD, flop_counter
from runner.interfaces import START
from runner.profiling.kernels import product_seconds
from runner.profiling.matmul import float32_precision
from runner.ragged.batch import Batch
from runner.training.loop import backward
from runner.training.state import Training

Shape = Sequence[int]
_SAMPLED = 8  # micro-batches in which operations are counted
_SMALLEST, _LARGEST = 128, 8192  # rows and columns of the matrices that the device is timed with
_SECONDS_PER_PRODUCT, _SECONDS = 0.002, 0.2  # shortest product that is timed, and approximate time of all


def arithmetic(t: Training) -> ArithmeticRecord | None:
    """Return the `arithmetic` section of result.json, or None if no update was timed.

    Called after training. Parameters, gradients and the state of random generators are unchanged afterwards.
    """
    timed = t.costs.by_length.values()
    places, seconds = (sum(sums[key] for sums in timed) for key in ("places", "seconds"))
    if not places or not seconds:
        return None
    parameter_dtype = next(t.model.parameters()).dtype
    dtype = torch.bfloat16 if t.bf16 else parameter_dtype
    per_place = flops_per_place(t)
    achieved = per_place * places / seconds
    # Under autocast parts of a model compute in float32, which is faster than bfloat16 on some processors.
    possible = max(
        device_flops_per_s(t.clock.device, candidate, torch.get_num_threads(), float32_precision())
        for candidate in {dtype, parameter_dtype}
    )
    return {
        "flops_per_place": per_place,
        "achieved_flops_per_s": achieved,
        "device_flops_per_s": possible,
        "share": achieved / possible,
        "dtype": str(dtype).removeprefix("torch."),
    }


def flops_per_place(t: Training) -> float:
    """Return the operations of forward and backward per position (token or padding), over a few micro-batches."""
    t.model.train()
    devices = [t.clock.device] if t.clock.device.type == "cuda" else []
    counter, places = flop_counter(FORMULAS), 0
    with torch.random.fork_rng(devices), counter:
        for batch in _sample(t):
            places += batch.real_tokens + batch.padded_tokens
            backward(t.model, [batch], t.task.count(batch), START, t.bf16, lambda phase: None)
            t.model.zero_grad()
    return counter.get_total_flops() / max(1, places)


def _sample(t: Training) -> Iterator[Batch]:
    """Yield one micro-batch of each of a few updates, which are spread evenly over the first epoch."""
    updates = t.batching.updates(t.train.cost_lengths, t.seed, 0)
    for place in np.unique(np.linspace(0, len(updates) - 1, _SAMPLED).astype(int)).tolist():
        micro_batches = list(t.batching.micro_batches(t.train, updates[place]))
        yield micro_batches[place % len(micro_batches)]


@cache
def device_flops_per_s(device: torch.device, dtype: torch.dtype, threads: int, precision: str) -> float:
    """Return the operations per second of the fastest of several products of large square matrices.

    The CPU `threads` and the `float32_precision()` are only keys of the cache.
    """
    size = _SMALLEST
    while (seconds := product_seconds(size, device, dtype, 1)[0]) < _SECONDS_PER_PRODUCT and size < _LARGEST:
        size *= 2
    fastest = min(product_seconds(size, device, dtype, max(3, math.ceil(_SECONDS / seconds))))
    return 2 * size**3 / fastest


def _matrix_elements(weights: Sequence[object]) -> int:
    """Return the total number of elements of the matrices among weights of these shapes."""
    shapes = [shape for shape in weights if isinstance(shape, Sequence)]
    return sum(math.prod(shape) for shape in shapes if len(shape) == 2)


# The formulas below take the shapes of an operation's arguments and return its number of operations.


def _onednn_rnn(input: Shape, *others: object, out_shape: object) -> int:
    """Count mkldnn_rnn_layer, one direction of one layer: input (T, B, D) and four weights."""
    return 2 * math.prod(input[:-1]) * _matrix_elements(others[:4])


def _cudnn_rnn(input: Shape, weights: Sequence[Shape], *others: object, out_shape: object) -> int:
    """Count _cudnn_rnn: input (T, B, D) or packed (N, D), and the weights of all layers and directions."""
    return 2 * math.prod(input[:-1]) * _matrix_elements(weights)


def _twice(count: Callable[..., int]) -> Callable[..., int]:
    """Return the formula of the backward pass: the gradients of inputs and of weights cost as much as forward each."""
    return lambda *shapes, **options: 2 * count(*shapes, **options)


def _attention(query: Shape, key: Shape, value: Shape, *others: object, out_shape: object, **options: object) -> int:
    """Count the products queries x keys and weights x values: (B, H, T, d), (B, H, K, d), (B, H, K, e)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *others: object, out_shape: object, **options: object
) -> int:
    """Count the scores again, then the gradients of weights, values, queries, keys (Dao et al. 2022, algorithm 4)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def _addmm(sum_: Shape, left: Shape, right: Shape, out_shape: object, **options: object) -> int:
    """Count addmm_: (M, K) x (K, N)."""
    return 2 * math.prod(left) * right[-1]


# Operations that torch's own counter does not know.
FORMULAS: dict[object, Callable[..., int]] = {
    torch.ops.aten.addmm_: _addmm,
    torch.ops.aten.mkldnn_rnn_layer: _onednn_rnn,
    torch.ops.aten.mkldnn_rnn_layer_backward: _twice(_onednn_rnn),
    CUDNN_RNN: _cudnn_rnn,
    CUDNN_RNN_BACKWARD: _twice(_cudnn_rnn),
    CPU_ATTENTION: _attention,
    CPU_ATTENTION_BACKWARD: _attention_backward,
}
