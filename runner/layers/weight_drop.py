"""DropConnect (Wan et al. 2013) on hidden-to-hidden weights, as in AWD-LSTM (Merity et al. 2017)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from runner.compat.torch import with_cell_weights
from runner.layers.dropout import drop_values


class WeightDrop(nn.Module):
    """In training, set each hidden-to-hidden weight to 0 with probability `drop` and divide the others by 1 - drop.

    All rows and steps of a forward pass share one mask; the next pass draws another. Since rows share weights, this is
    the one dropout that row seeds (`runner.layers.dropout`) do not control.

    Args:
        drop: at least 0, less than 1.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    @property
    def has_randomness(self) -> bool:
        """True unless `drop` is 0 (`runner.interfaces.HasRandomness`)."""
        return self.drop > 0.0

    @contextmanager
    def apply_to(self, cell: nn.RNNBase) -> Iterator[None]:
        """Within the context, let a cell of one layer and one direction compute with dropped weights, in any kernel."""
        if not self.training or self.drop == 0.0:
            yield
            return
        from_input, from_hidden, *biases = cell.all_weights[0]
        weights = [from_input, drop_values(from_hidden, self.drop), *biases]
        # cuDNN warns that it copies weights that are not contiguous
        with with_cell_weights(cell, weights), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
            yield

    def extra_repr(self) -> str:
        return f"drop={self.drop}"
