"""Which of torch's kernels really run."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_KERNELS = {
    "mkldnn_rnn_layer": "oneDNN RNN",
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


class KernelWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of torch's kernels run while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def describe(self, layout: str) -> str:
        """What ran, for `kernel` in result.json: `oneDNN RNN, padded`."""
        named = [text for name, text in _KERNELS.items() if name in self.seen]
        return ", ".join([*(named or ["matrix products"]), layout])
