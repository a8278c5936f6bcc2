"""DropConnect (Wan et al. 2013) on hidden-to-hidden weights, as in AWD-LSTM (Merity et al. 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from runner.layers.dropout import dropped_out


class WeightDrop(nn.Module):
    """Drop each hidden-to-hidden weight with probability `drop` in training, and divide the others by 1 - drop.

    One mask for all rows and all steps of a forward pass, the next pass has another. So it is the one dropout that rows
    share by nature, and their seeds (`runner.layers.dropout`) say nothing of it.

    Args:
        drop: 0 to below 1.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    @contextmanager
    def of(self, cell: nn.RNNBase) -> Iterator[None]:
        """Meanwhile, a cell of one layer and one direction computes with fewer weights, by whichever kernel."""
        if not self.training or self.drop == 0.0:
            yield
            return
        kept = cell._flat_weights
        from_input, from_hidden, *biases = cell.all_weights[0]
        cell._flat_weights = [from_input, dropped_out(from_hidden, self.drop), *biases]
        try:
            with warnings.catch_warnings():  # cuDNN says that it copies weights which are no one block of memory
                warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
                yield
        finally:
            cell._flat_weights = kept

    def extra_repr(self) -> str:
        return f"drop={self.drop}"
