"""Which of torch's kernels this machine has, and which of them ran.

torch offers an arithmetic that a processor may lack: oneDNN has no bfloat16 LSTM without AVX-512, autocast chooses it
all the same, and the run ends in an error. `support` finds out by a small trial, once per process. Other operations run
without instructions for them, but slowly: `warn_if_slow` says so.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from statistics import median
from threading import Thread
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from runner.compat.torch import DispatchMode

log = logging.getLogger(__name__)
Operation = Literal["lstm", "matmul", "convolution", "attention"]
Support = Literal["training", "inference", "none"]
HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
FLOAT32_LSTM = "LSTM in float32"  # what `Recurrence` computes where autocast would choose a kernel that is not there

_FUSED_RNN = "mkldnn_rnn_layer"  # its second argument are input-to-hidden weights, which tell layers apart
_NAMED = "_record_function_enter_new"  # its first argument names what several kernels compute together
_KERNELS = {
    _FUSED_RNN: "oneDNN RNN",
    FLOAT32_LSTM: FLOAT32_LSTM,  # said after the kernel that computed it
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


_SIZE = 64  # numbers per token of the trials: products of fewer may be too small for oneDNN
_TIMED_SIZE, _TIMES, _SLOW = 192, 5, 1.5  # of the products that are timed, and the ratio from which a warning is due


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
    """Return how far `operation` runs on this machine under autocast to `dtype`: for gradients, without, or not.

    The trial runs in a thread of its own: grad mode, autocast and dispatch modes such as `KernelWatch` belong to a
    thread, so the caller's do not disturb the trial, and the trial does not show up in what they count. Whatever error
    ends the trial, the operation does not run here; the record of a finished run must not be lost for its wording.
    """
    found: list[Support] = ["none"]

    def attempt() -> None:
        x = torch.ones(2, 3, _SIZE, device=device_type, requires_grad=True)
        try:
            with torch.autocast(device_type, dtype):
                with torch.no_grad():
                    _TRIALS[operation](x, False)
                found.append("inference")
                output = _TRIALS[operation](x, True)
            output.float().sum().backward()  # type: ignore[no-untyped-call]
            found.append("training")
        except RuntimeError as error:
            log.debug("%s in %s does not run on %s: %s", operation, dtype, device_type, error)

    trial = Thread(target=attempt)
    trial.start()
    trial.join()
    return found[-1]


def runs(operation: Operation, dtype: torch.dtype, device_type: str, training: bool) -> bool:
    """Return whether autocast to `dtype` has a kernel for `operation`; `training`: with its gradient."""
    return support(operation, dtype, device_type) in (("training",) if training else ("training", "inference"))


@cache
def warn_if_slow(dtype: torch.dtype) -> None:
    """Warn once if this processor multiplies matrices of `dtype` more slowly than float32: it has no units for them."""
    seconds = {kind: _product_seconds(kind) for kind in (torch.float32, dtype)}
    ratio = seconds[dtype] / seconds[torch.float32]
    if ratio > _SLOW:
        name = str(dtype).removeprefix("torch.")
        log.warning(
            "%s products take %.0f times as long as float32's on this processor (%s); precision=float32 is faster",
            name,
            ratio,
            torch.backends.cpu.get_cpu_capability(),
        )


def _product_seconds(dtype: torch.dtype) -> float:
    """Return the median time of a product of two square matrices, after one that is not counted."""
    left, right = (torch.ones(_TIMED_SIZE, _TIMED_SIZE, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(1 + _TIMES):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])


def describe_machine(device: torch.device) -> dict[str, object]:
    """Return the `kernels` of a run's provenance: the instruction set, and support by arithmetic and operation."""
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{
            name: {operation: support(operation, dtype, device.type) for operation in _TRIALS}
            for name, dtype in HALF_PRECISIONS.items()
        },
    }


class KernelWatch(DispatchMode):
    """Notes which of torch's kernels run while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.calls_of: Counter[int] = Counter()  # address of a recurrent layer's weights -> calls of its fused kernel

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen.add(args[0] if name == _NAMED else name)
        if name == _FUSED_RNN:
            self.calls_of[args[1].data_ptr()] += 1
        return func(*args, **(kwargs or {}))

    def describe(self, layout: str) -> str:
        """Return the kernels of a forward pass, for `kernel` in result.json: `oneDNN RNN in 3 blocks, packed`."""
        named = [text + self._blocks(name) for name, text in _KERNELS.items() if name in self.seen]
        return ", ".join([*(named or [_NONE_OF_THEM]), layout])

    def names(self) -> str:
        """Return the kernels without the number of calls: `oneDNN RNN, convolution`."""
        return ", ".join(text for name, text in _KERNELS.items() if name in self.seen) or _NONE_OF_THEM

    def _blocks(self, name: str) -> str:
        """In how many rectangles the rows ran, where they did not run in one."""
        if name != _FUSED_RNN or max(self.calls_of.values()) == 1:
            return ""
        fewest, most = min(self.calls_of.values()), max(self.calls_of.values())
        return f" in {most} blocks" if fewest == most else f" in {fewest} to {most} blocks"
