"""Torch's fused recurrent cells, which it has for GPUs alone, for the device of `pretended`: by name, on the host.

Torch calls them step by step where a GPU has one kernel for the whole sequence. Shapes: R rows, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lstm(
    from_input: Tensor, from_hidden: Tensor, before: Tensor, bias: Tensor | None = None, other: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(R, 4H), (R, 4H), (R, H) -> hidden, cell, and the gates (R, 4H)."""
    sums = from_input + from_hidden + (0 if bias is None or other is None else bias + other)
    enter, forget, candidate, leave = sums.chunk(4, dim=1)
    enter, forget, leave = enter.sigmoid(), forget.sigmoid(), leave.sigmoid()
    cell = forget * before + enter * candidate.tanh()
    return leave * cell.tanh(), cell, torch.cat([enter, forget, candidate.tanh(), leave], dim=1)


def lstm_backward(
    to_hidden: Tensor | None, to_cell: Tensor | None, before: Tensor, cell: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the gates' sums, of the cell before, and of each bias."""
    enter, forget, candidate, leave = gates.chunk(4, dim=1)
    out = torch.zeros_like(cell) if to_hidden is None else to_hidden
    inner = out * leave * (1 - cell.tanh() ** 2) + (0 if to_cell is None else to_cell)
    sums = torch.cat(
        [
            inner * candidate * enter * (1 - enter),
            inner * before * forget * (1 - forget),
            inner * enter * (1 - candidate**2),
            out * cell.tanh() * leave * (1 - leave),
        ],
        dim=1,
    )
    return sums, inner * forget, sums.sum(dim=0)


def gru(
    from_input: Tensor, from_hidden: Tensor, before: Tensor, bias: Tensor | None = None, other: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(R, 3H), (R, 3H), (R, H) -> hidden, and (R, 5H): the gates, the state before, and what the reset gate weighs."""
    reset_x, update_x, candidate_x = (from_input if bias is None else from_input + bias).chunk(3, dim=1)
    reset_h, update_h, candidate_h = (from_hidden if other is None else from_hidden + other).chunk(3, dim=1)
    reset, update = (reset_x + reset_h).sigmoid(), (update_x + update_h).sigmoid()
    candidate = (candidate_x + reset * candidate_h).tanh()
    kept = torch.cat([reset, update, candidate, before, candidate_h], dim=1)
    return (1 - update) * candidate + update * before, kept


def gru_backward(to_hidden: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of what comes from the input and from the hidden state, of the state before, and of both biases."""
    reset, update, candidate, before, weighed = kept.chunk(5, dim=1)
    of_update = to_hidden * (before - candidate) * update * (1 - update)
    of_candidate = to_hidden * (1 - update) * (1 - candidate**2)
    of_reset = of_candidate * weighed * reset * (1 - reset)
    inputs = torch.cat([of_reset, of_update, of_candidate], dim=1)
    hidden = torch.cat([of_reset, of_update, of_candidate * reset], dim=1)
    return inputs, hidden, to_hidden * update, inputs.sum(dim=0), hidden.sum(dim=0)


CELLS = {
    "_thnn_fused_lstm_cell": lstm,
    "_thnn_fused_lstm_cell_backward_impl": lstm_backward,
    "_thnn_fused_gru_cell": gru,
    "_thnn_fused_gru_cell_backward": gru_backward,
}
