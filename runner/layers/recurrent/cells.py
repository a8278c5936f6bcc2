"""Recurrent cells written out, and stepped through time: what the fused kernels of `recurrence` compute.

Shapes: R rows that are still running, D inputs, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Carried = tuple[Tensor, ...]  # (R, H) hidden, and (R, H) cell of an LSTM
Gates = tuple[Tensor, ...]  # (R, H) each
Cell = Callable[[Tensor, Tensor, Carried], tuple[Gates, Carried]]

# what a cell computes at each step, in the order of its gates and then of its state
PARTS: dict[str, tuple[str, ...]] = {
    "RNN_TANH": ("hidden",),
    "GRU": ("reset", "update", "candidate", "hidden"),
    "LSTM": ("input", "forget", "output", "candidate", "hidden", "cell"),
}
GATES = ("input", "forget", "output", "reset", "update")  # of those the ones from 0 (closed) to 1 (open)


def rnn_cell(from_input: Tensor, from_hidden: Tensor, state: Carried) -> tuple[Gates, Carried]:
    """h' = tanh(W x + U h) (Elman 1990), without gates.

    Args:
        from_input: (R, H) W x + b; of other cells (R, GH), for G gates one after another.
        from_hidden: the same size, U h + c.
        state: before this step.

    Returns:
        The gates of this step, and the state after it; `PARTS` names both.
    """
    return (), (torch.tanh(from_input + from_hidden),)


def gru_cell(from_input: Tensor, from_hidden: Tensor, state: Carried) -> tuple[Gates, Carried]:
    """Reset r, update z, candidate n: h' = (1 - z) n + z h (Cho et al. 2014; r is multiplied after U, as in cuDNN)."""
    (hidden,) = state
    reset_x, update_x, candidate_x = from_input.chunk(3, dim=1)
    reset_h, update_h, candidate_h = from_hidden.chunk(3, dim=1)
    reset = torch.sigmoid(reset_x + reset_h)
    update = torch.sigmoid(update_x + update_h)
    candidate = torch.tanh(candidate_x + reset * candidate_h)
    return (reset, update, candidate), ((1.0 - update) * candidate + update * hidden,)


def lstm_cell(from_input: Tensor, from_hidden: Tensor, state: Carried) -> tuple[Gates, Carried]:
    """Gates i, f, o, candidate g: c' = f c + i g, h' = o tanh(c') (Hochreiter, Schmidhuber 1997; Gers et al. 2000)."""
    _, memory = state
    sums = (from_input + from_hidden).chunk(4, dim=1)
    enter, forget, leave = torch.sigmoid(sums[0]), torch.sigmoid(sums[1]), torch.sigmoid(sums[3])
    candidate = torch.tanh(sums[2])
    memory = forget * memory + enter * candidate
    return (enter, forget, leave, candidate), (leave * torch.tanh(memory), memory)


CELLS: dict[str, Cell] = {"RNN_TANH": rnn_cell, "GRU": gru_cell, "LSTM": lstm_cell}


def hidden_of(gates: Gates, state: Carried) -> Tensor:
    """(R, H) what a layer gives to the next one."""
    return state[0]


def everything(gates: Gates, state: Carried) -> Tensor:
    """(R, P, H) gates and state, in the order of `PARTS`."""
    return torch.stack((*gates, *state), dim=1)


def stepped(
    module: nn.RNNBase,
    inputs: Tensor,
    batch_sizes: list[int],
    state: Carried,
    keep: Callable[[Gates, Carried], Tensor] = hidden_of,
) -> tuple[Tensor, Carried]:
    """Step a cell through time, over fewer and fewer rows.

    Args:
        module: one layer, one direction; the weights it computes with (W, U, b, c) are used, its kernel is not.
        inputs: (N, D) time-major, as in a `PackedSequence`: every row's first token, longest row first, and so on.
        batch_sizes: how many rows are running at each step.
        state: (R, H) each, of all rows, at their begin.
        keep: what of each step comes out.

    Returns:
        (N, *) time-major what is kept, and the state at each row's own end.
    """
    cell, (w, u, b, c) = CELLS[module.mode], [one for one in module._flat_weights if one is not None]
    outputs, ended = [], []
    for now in torch.split(inputs, batch_sizes):
        running = len(now)
        ended.append(tuple(one[running:] for one in state))  # rows that are shorter: their state is final
        state = tuple(one[:running] for one in state)
        gates, state = cell(F.linear(now, w, b), F.linear(state[0], u, c), state)
        outputs.append(keep(gates, state))
    ended.append(state)  # of the longest rows
    return torch.cat(outputs), tuple(torch.cat(part) for part in zip(*reversed(ended), strict=True))
