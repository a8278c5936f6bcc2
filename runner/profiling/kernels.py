"""The kernels of torch that this machine has, how fast they multiply, and those that ran.

torch offers arithmetic that a processor may lack: oneDNN has no bfloat16 LSTM without AVX-512, but autocast chooses it
anyway, and the run ends in an error. `support` finds out by a small trial, once per process. Other operations run
without special instructions, but slowly: `warn_if_slow` reports that.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from statistics import median
from threading import Thread
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.common.dtypes import DTYPES
from runner.compat.torch import DispatchMode, Operator

log = logging.getLogger(__name__)
Operation = Literal["lstm", "matmul", "convolution", "attention"]
Support = Literal["training", "inference", "none"]
HALF_PRECISIONS = ("bf16", "fp16")
FLOAT32_LSTM = "LSTM in float32"  # the fallback of `Recurrence` if autocast would choose a kernel that does not exist

_FUSED_RNN = "mkldnn_rnn_layer"  # its second argument, the input-to-hidden weights, identifies the layer
_NAMED = "_record_function_enter_new"  # its first argument is the name of a group of kernels
_KERNELS = {  # operation -> name in result.json
    _FUSED_RNN: "oneDNN RNN",
    FLOAT32_LSTM: FLOAT32_LSTM,  # listed after the kernel that computed it
    "unrolled GRU": "GRU unrolled",
    "unrolled RNN_TANH": "tanh RNN unrolled",
    "_cudnn_rnn": "cuDNN RNN",
    "_thnn_fused_lstm_cell": "ATen LSTM cells",
    "_thnn_fused_gru_cell": "ATen GRU cells",
    "sigmoid_": "RNN cells step by step",
    "_scaled_dot_product_flash_attention_for_cpu": "flash attention (CPU)",
    "_scaled_dot_product_flash_attention": "flash attention",
    "_scaled_dot_product_efficient_attention": "memory-efficient attention",
    "_scaled_dot_product_cudnn_attention": "cuDNN attention",
    "_scaled_dot_product_attention_math": "attention by matrix products",
    "convolution": "convolution",
}
_NONE_OF_THEM = "matrix products"

_SIZE = 64  # features per token in the trials: oneDNN may leave smaller products to other kernels
_TIMED_SIZE, _TIMES = 192, 5  # rows and columns of the matrices of `warn_if_slow`, and number of products
_SLOW = 1.5  # ratio to float32 above which `warn_if_slow` warns


def _lstm(x: Tensor, training: bool) -> Tensor:
    weights = [x.new_ones(4 * _SIZE, _SIZE) for _ in range(2)] + [x.new_ones(4 * _SIZE) for _ in range(2)]
    state = (x.new_zeros(1, 2, _SIZE), x.new_zeros(1, 2, _SIZE))
    output: Tensor = torch.lstm(x, state, weights, True, 1, 0.0, training, False, True)[0]
    return output


_TRIALS: dict[Operation, Callable[[Tensor, bool], Tensor]] = {
    "lstm": _lstm,
    "matmul": lambda x, training: x @ x.new_ones(_SIZE, _SIZE),
    "convolution": lambda x, training: F.conv1d(x.transpose(1, 2), x.new_ones(_SIZE, _SIZE, 1)),
    "attention": lambda x, training: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]),
}


@cache
def support(operation: Operation, dtype: torch.dtype, device_type: str) -> Support:
    """Return whether `operation` runs on this machine under autocast to `dtype`: with gradients, without, or not.

    Any RuntimeError of the trial means that the operation does not run here, whatever its message: an unknown
    message must not lose the record of a finished run.
    """
    # The trial runs in a thread of its own: grad mode, autocast and dispatch modes such as `KernelWatch` belong to a
    # thread, so the caller's do not disturb the trial, and do not count its operations.
    levels: list[Support] = ["none"]

    def attempt() -> None:
        try:
            x = torch.ones(2, 3, _SIZE, device=device_type, requires_grad=True)
            with torch.autocast(device_type, dtype):
                with torch.no_grad():
                    _TRIALS[operation](x, False)
                levels.append("inference")
                output = _TRIALS[operation](x, True)
            output.float().sum().backward()  # type: ignore[no-untyped-call]
            levels.append("training")
        except RuntimeError as error:
            log.debug("%s in %s does not run on %s: %s", operation, dtype, device_type, error)

    trial = Thread(target=attempt)
    trial.start()
    trial.join()
    return levels[-1]


def runs(operation: Operation, dtype: torch.dtype, device_type: str, training: bool) -> bool:
    """Return whether autocast to `dtype` has a kernel for `operation`; `training`: with its gradient."""
    return support(operation, dtype, device_type) in (("training",) if training else ("training", "inference"))


@cache
def warn_if_slow(dtype: torch.dtype) -> None:
    """Warn once if this processor has no units for `dtype` and multiplies its matrices more slowly than float32's."""
    cpu = torch.device("cpu")
    seconds, of_float32 = (median(product_seconds(_TIMED_SIZE, cpu, kind, _TIMES)) for kind in (dtype, torch.float32))
    ratio = seconds / of_float32
    if ratio > _SLOW:
        name, capability = str(dtype).removeprefix("torch."), torch.backends.cpu.get_cpu_capability()
        log.warning(
            f"{name} products take {ratio:.0f} times as long as float32's on this processor ({capability}); "
            "precision=float32 is faster"
        )


def product_seconds(size: int, device: torch.device, dtype: torch.dtype, times: int) -> list[float]:
    """Return the time of each of several products of two square matrices, after one that is not timed."""
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    product = left @ right
    seconds = []
    for _ in range(times):
        start = now(device)
        torch.mm(left, right, out=product)
        seconds.append(now(device) - start)
    return seconds


def now(device: torch.device) -> float:
    """Return the host's clock, once the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def describe_machine(device: torch.device) -> dict[str, object]:
    """Return `provenance.kernels` of result.json: the instruction set, and the support by precision and operation."""
    record: dict[str, object] = {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
    for name in HALF_PRECISIONS:
        record[name] = {operation: support(operation, DTYPES[name], device.type) for operation in _TRIALS}
    return record


class KernelWatch(DispatchMode):
    """A context that records the kernels that run within it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.calls: Counter[int] = Counter()  # address of a recurrent layer's weights -> calls of its fused kernel

    def __torch_dispatch__(
        self, func: Operator, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        name = func.overloadpacket.__name__
        self.seen.add(str(args[0]) if name == _NAMED else name)
        if name == _FUSED_RNN:
            weights = args[1]
            assert isinstance(weights, Tensor)
            self.calls[weights.data_ptr()] += 1
        return func(*args, **(kwargs or {}))

    def describe(self, layout: str) -> str:
        """Return the kernels of a forward pass, for `kernel` in result.json: `oneDNN RNN in 3 blocks, packed`."""
        # The rows of a recurrent layer are cut into rectangles, with a call of the fused kernel for each.
        fewest, most = min(self.calls.values(), default=1), max(self.calls.values(), default=1)
        blocks = f" in {most} blocks" if fewest == most else f" in {fewest} to {most} blocks"
        fused = _KERNELS[_FUSED_RNN]
        return f"{self.names()}, {layout}".replace(fused, fused + blocks if most > 1 else fused)

    def names(self) -> str:
        """Return the kernels without the number of calls: `oneDNN RNN, convolution`."""
        return ", ".join(text for name, text in _KERNELS.items() if name in self.seen) or _NONE_OF_THEM
