"""A bag of words: each row is pooled to one vector, regardless of order, and optionally transformed."""

from __future__ import annotations

from typing import Literal

from torch import nn

from runner.common.errors import HydromelError
from runner.common.types import Fraction, Sizes
from runner.interfaces import State
from runner.layers.pooling import Mlp, pooling
from runner.ragged.ragged import Ragged


class Bow(nn.Module):
    """Pooling followed by hidden layers with ReLU (with pool=mean a deep averaging network, Iyyer et al. 2015).

    Args:
        causal: must be false, since a bag of words has no order.
        pool: mean, max, min or sum over the row; sqrt: sum / sqrt(length); unit_sum: sum scaled to norm 1.
        hidden: sizes of the hidden layers; [] for none.
        dropout: probability, on the pooled vector and after each hidden layer.
    """

    per_token = False

    def __init__(
        self,
        *,
        input_size: int,
        causal: bool,
        pool: Literal["mean", "max", "min", "sum", "sqrt", "unit_sum"],
        hidden: Sizes,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if causal:
            raise HydromelError(
                "encoder=bow gives one vector per row, so it cannot predict each next token; use encoder=rnn"
            )
        self.pool = pooling(pool, input_size)
        self.hidden = Mlp(input_size, hidden, dropout)
        self.output_size = self.hidden.output_size

    def forward(self, x: Ragged, state: State) -> tuple[Ragged, State]:
        """Map rows of (length, D) to rows of one vector each."""
        single = x.rows.single
        vectors = self.hidden(self.pool(x), single)
        return Ragged(vectors if x.layout == "packed" else vectors[:, None], single, x.layout), None
