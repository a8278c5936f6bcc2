"""Which of torch's kernels really run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_FUSED_RNN = "mkldnn_rnn_layer"  # its second argument are input-to-hidden weights, which tell layers apart
_NAMED = "_record_function_enter_new"  # its first argument names what several kernels compute together
_KERNELS = {
    _FUSED_RNN: "oneDNN RNN",
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


class KernelWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of torch's kernels run while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()
        self.calls_of: Counter[int] = Counter()  # address of a recurrent layer's weights -> calls of its fused kernel

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
