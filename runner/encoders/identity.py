"""No context: each token's vector as it is."""

from __future__ import annotations

from torch import nn

from runner.common.types import Fraction, PositiveInt
from runner.interfaces import State
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged


class NoContext(nn.Module):
    """Hands on the embedding's vectors; baselines that know a token by itself.

    Args:
        input_size: D.
        dropout: probability of dropping a number of a vector.
    """

    per_token = True

    def __init__(self, *, input_size: PositiveInt, dropout: Fraction) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.output_size = input_size

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        """Rows of (length, D) -> the same; nothing is carried from window to window."""
        return self.dropout.of(x), state
