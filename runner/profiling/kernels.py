"""Which of torch's kernels this machine has, and which of them ran.

torch offers an arithmetic that a processor may lack: oneDNN has no bfloat16 LSTM without AVX-512, autocast chooses it
all the same, and the run ends in an error. `support` finds out by a small trial, once per process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from threading import Thread
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Operation = Literal["lstm", "matmul", "convolution", "attention"]
Support = Literal["training", "inference", "none"]
HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
FLOAT32_LSTM = "LSTM in float32"  # what `Recurrence` computes where autocast would choose a kernel that is not there

# what torch says of a kernel that was not built for this processor or this arithmetic
_MISSING = (
    "could not create a primitive descriptor",
    "not implemented for 'Half'",
    "not implemented for 'BFloat16'",
    "needs the cpu support",
    "No available kernel",
    "no kernel image is available",
)

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


def _lstm(x: Tensor) -> Tensor:
    weights = [x.new_ones(16, 4), x.new_ones(16, 4), x.new_ones(16), x.new_ones(16)]
    state = (x.new_zeros(1, 2, 4), x.new_zeros(1, 2, 4))
    output: Tensor = torch.lstm(x, state, weights, True, 1, 0.0, True, False, True)[0]
    return output


_TRIALS: dict[Operation, Callable[[Tensor], Tensor]] = {
    "lstm": _lstm,
    "matmul": lambda x: x @ x.new_ones(4, 4),
    "convolution": lambda x: F.conv1d(x.transpose(1, 2), x.new_ones(4, 4, 1)),
    "attention": lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]),
}


@cache
def support(operation: Operation, dtype: torch.dtype, device_type: str) -> Support:
    """Return how far `operation` runs on this machine under autocast to `dtype`: for gradients, without, or not.

    The trial runs in a thread of its own: grad mode, autocast and dispatch modes such as `KernelWatch` belong to a
    thread, so neither those of the caller disturb the trial, nor does the trial show up in what they count.

    Raises:
        RuntimeError: the trial fails for another reason than a missing kernel.
    """
    found: list[Support] = []
    errors: list[Exception] = []

    def attempt() -> None:
        x = torch.ones(2, 3, 4, device=device_type, requires_grad=True)
        try:
            with torch.autocast(device_type, dtype):
                with torch.no_grad():
                    _TRIALS[operation](x)
                found.append("inference")
                output = _TRIALS[operation](x)
            output.float().sum().backward()  # type: ignore[no-untyped-call]
            found.append("training")
        except RuntimeError as error:
            if not missing_kernel(error):
                errors.append(error)

    trial = Thread(target=attempt)
    trial.start()
    trial.join()
    if errors:
        raise errors[0]
    return found[-1] if found else "none"


def runs(operation: Operation, dtype: torch.dtype, device_type: str, training: bool) -> bool:
    """Return whether autocast to `dtype` has a kernel for `operation`; `training`: with its gradient."""
    return support(operation, dtype, device_type) in (("training",) if training else ("training", "inference"))


def missing_kernel(error: BaseException) -> str:
    """Return what torch says of a kernel that this machine lacks, in a sentence; empty for any other error."""
    if not isinstance(error, RuntimeError) or not any(words in str(error) for words in _MISSING):
        return ""
    return str(error).splitlines()[0].split(". ")[0].rstrip(".")


def describe_machine(device: torch.device) -> dict[str, object]:
    """Return the `kernels` of a run's provenance: the instruction set, and support by arithmetic and operation."""
    return {
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{
            name: {operation: support(operation, dtype, device.type) for operation in _TRIALS}
            for name, dtype in HALF_PRECISIONS.items()
        },
    }


class KernelWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of torch's kernels run while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()
        self.calls_of: Counter[int] = Counter()  # address of a recurrent layer's weights -> calls of its fused kernel

    def __torch_dispatch__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen.add(args[0] if name == _NAMED else name)
        if name == _FUSED_RNN:
            self.calls_of[args[1].data_ptr()] += 1
        return func(*args, **(kwargs or {}))

    def describe(self, layout: str) -> str:
        """What ran in a forward pass, for `kernel` in result.json: `oneDNN RNN in 3 blocks, packed`."""
        named = [text + self._blocks(name) for name, text in _KERNELS.items() if name in self.seen]
        return ", ".join([*(named or [_NONE_OF_THEM]), layout])

    def names(self) -> str:
        """What ran, however often: `oneDNN RNN, convolution`."""
        return ", ".join(text for name, text in _KERNELS.items() if name in self.seen) or _NONE_OF_THEM

    def _blocks(self, name: str) -> str:
        """In how many rectangles the rows ran, where they did not run in one."""
        if name != _FUSED_RNN or max(self.calls_of.values()) == 1:
            return ""
        fewest, most = min(self.calls_of.values()), max(self.calls_of.values())
        return f" in {most} blocks" if fewest == most else f" in {fewest} to {most} blocks"
