"""One direction of one recurrent layer over ragged rows; the backward direction starts at each row's own end.

Two one-directional modules with a reversal by row lengths equal torch's packed bidirectional ones, and keep the fused
kernels for rectangles (torch's own `bidirectional=True` reads padding first).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from runner.ragged import Ragged

Cell = Literal["rnn", "gru", "lstm"]
Carried = tuple[Tensor, ...]  # (B, H) hidden, and (B, H) cell of an LSTM
_MODULES: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrence(nn.Module):
    """A recurrent layer in one direction.

    Args:
        cell: tanh `rnn` (Elman 1990), `gru` (Cho et al. 2014) or `lstm` (Hochreiter and Schmidhuber 1997).
        input_size: D.
        hidden: H.
        reverse: read each row from its own end.
    """

    def __init__(self, cell: Cell, input_size: int, hidden: int, reverse: bool) -> None:
        super().__init__()
        self.cell = _MODULES[cell](input_size, hidden, batch_first=True)
        self.hidden, self.reverse, self.is_lstm = hidden, reverse, cell == "lstm"

    def forward(self, x: Ragged, state: Carried | None) -> tuple[Ragged, Carried]:
        """Rows of (length, D), state at their begin (B, H) -> rows of (length, H), state at each row's own end.

        An empty row keeps its state. In a rectangle rows of unequal lengths end at different steps, where the fused
        kernels do not show an LSTM's cell: its end is right only if packed or all rows are equally long.
        """
        if state is None:
            zeros = x.values.new_zeros(x.rows.n_rows, self.hidden)
            state = (zeros, zeros) if self.is_lstm else (zeros,)
        if x.rows.n_tokens == 0:
            return x.with_values(x.values.new_zeros(*x.values.shape[:-1], self.hidden)), state
        if x.layout == "packed":
            return self._packed(x, state)
        return self._padded(x, state)

    def _padded(self, x: Ragged, state: Carried) -> tuple[Ragged, Carried]:
        values = x.filled(0.0)
        if self.reverse:
            values = _reversed(x, values)
        output, end = self.cell(values, self._torch_state(state))
        if self.reverse:
            output = _reversed(x, output)
        lengths = x.rows.host_lengths
        if np.all(lengths == x.rows.width):
            return x.with_values(output), self._own_state(end)
        return x.with_values(output), self._end_by_row(x, output, state)

    def _end_by_row(self, x: Ragged, output: Tensor, state: Carried) -> Carried:
        """Hidden state at each row's own end. An LSTM's cell is not to be had there: `Rnn` never carries it on."""
        last = torch.zeros_like(x.lengths) if self.reverse else (x.lengths - 1).clamp(min=0)
        index = last[:, None, None].expand(-1, 1, self.hidden)
        hidden = output.gather(1, index)[:, 0]
        hidden = torch.where((x.lengths == 0)[:, None], state[0], hidden)
        return (hidden, *state[1:])

    def _packed(self, x: Ragged, state: Carried) -> tuple[Ragged, Carried]:
        time = x.rows.time_major
        tokens = time.tokens
        if self.reverse:
            tokens = x.rows.packed_reversal.index_select(0, tokens)
        sequence = PackedSequence(x.values.index_select(0, tokens), time.batch_sizes)
        begin = tuple(one.index_select(0, time.row_order) for one in state)
        output, end = self.cell(sequence, self._torch_state(begin))
        back = time.inverse
        if self.reverse:
            back = back.index_select(0, x.rows.packed_reversal)
        ends = self._own_state(end)
        kept = tuple(old.index_copy(0, time.row_order, new) for old, new in zip(state, ends, strict=True))
        return x.with_values(output.data.index_select(0, back)), kept

    def _torch_state(self, state: Carried) -> Tensor | tuple[Tensor, Tensor]:
        return (state[0][None], state[1][None]) if self.is_lstm else state[0][None]

    def _own_state(self, end: Tensor | tuple[Tensor, Tensor]) -> Carried:
        return (end[0][0], end[1][0]) if isinstance(end, tuple) else (end[0],)


def _reversed(x: Ragged, values: Tensor) -> Tensor:
    return values.gather(1, x.rows.padded_reversal[:, :, None].expand_as(values))
