"""The identity encoder: each token's vector without context."""

from __future__ import annotations

from torch import nn

from runner.common.types import Fraction, PositiveInt
from runner.interfaces import State
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged


class Identity(nn.Module):
    """The embedding's vectors, unchanged but for `dropout`: a baseline that sees each token in isolation."""

    per_token = True
    causal = True

    def __init__(self, *, input_size: PositiveInt, dropout: Fraction) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.output_size = input_size

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        """Apply dropout to rows of (length, D). The state is returned as it is: no token depends on others."""
        return self.dropout.apply_to(x), state
