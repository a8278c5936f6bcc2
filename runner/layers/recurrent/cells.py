"""Recurrent cells written out and stepped through time. They compute the same as the fused kernels of `recurrence`.

Shapes: R rows that are still running, N tokens in all, D inputs, H hidden units, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.compat.torch import cell_weights

RecurrentState = tuple[Tensor, ...]  # (R, H) hidden state, and for an LSTM (R, H) cell state
Gates = tuple[Tensor, ...]  # (R, H) each
CellStep = Callable[[Tensor, Tensor, RecurrentState], tuple[Gates, RecurrentState]]

# the tensors that a cell computes at each step: first its gates, then its state
PARTS: dict[str, tuple[str, ...]] = {
    "RNN_TANH": ("hidden",),
    "GRU": ("reset", "update", "candidate", "hidden"),
    "LSTM": ("input", "forget", "output", "candidate", "hidden", "cell"),
}
GATES = ("input", "forget", "output", "reset", "update")  # the parts with values from 0 (closed) to 1 (open)


def rnn_cell(from_input: Tensor, from_hidden: Tensor, state: RecurrentState) -> tuple[Gates, RecurrentState]:
    """Compute h' = tanh(W x + b + U h + c) (Elman 1990), which has no gates.

    Like every cell, it maps W x + b and U h + c, (R, GH) with the gates concatenated (here G is 1), and the state
    before a step to the gates of the step and the state after it, both named by `PARTS`.
    """
    return (), (torch.tanh(from_input + from_hidden),)


def gru_cell(from_input: Tensor, from_hidden: Tensor, state: RecurrentState) -> tuple[Gates, RecurrentState]:
    """Compute h' = (1 - z) n + z h from update gate z, candidate n and reset gate r (Cho et al. 2014).

    As in cuDNN, r multiplies U h + c rather than h.
    """
    (hidden,) = state
    reset_x, update_x, candidate_x = from_input.chunk(3, dim=1)
    reset_h, update_h, candidate_h = from_hidden.chunk(3, dim=1)
    reset = torch.sigmoid(reset_x + reset_h)
    update = torch.sigmoid(update_x + update_h)
    candidate = torch.tanh(candidate_x + reset * candidate_h)
    return (reset, update, candidate), ((1.0 - update) * candidate + update * hidden,)


def lstm_cell(from_input: Tensor, from_hidden: Tensor, state: RecurrentState) -> tuple[Gates, RecurrentState]:
    """Compute c' = f c + i g and h' = o tanh(c') from gates i, f, o, candidate g (Hochreiter and Schmidhuber 1997)."""
    _, memory = state
    sums = (from_input + from_hidden).chunk(4, dim=1)  # torch orders the parts i, f, g, o
    input_gate, forget, output_gate = torch.sigmoid(sums[0]), torch.sigmoid(sums[1]), torch.sigmoid(sums[3])
    candidate = torch.tanh(sums[2])
    memory = forget * memory + input_gate * candidate
    return (input_gate, forget, output_gate, candidate), (output_gate * torch.tanh(memory), memory)


CELLS: dict[str, CellStep] = {"RNN_TANH": rnn_cell, "GRU": gru_cell, "LSTM": lstm_cell}


def hidden_state(gates: Gates, state: RecurrentState) -> Tensor:
    """Return the hidden state, (R, H): the output of a layer."""
    return state[0]


def stack_gates_and_states(gates: Gates, state: RecurrentState) -> Tensor:
    """Return gates and state stacked in the order of `PARTS`, (R, P, H) for P parts."""
    return torch.stack((*gates, *state), dim=1)


def run_steps(
    module: nn.RNNBase,
    inputs: Tensor,
    batch_sizes: list[int],
    state: RecurrentState,
    keep: Callable[[Gates, RecurrentState], Tensor] = hidden_state,
) -> tuple[Tensor, RecurrentState]:
    """Step a cell through time; return the outputs, (N, *) time-major, and the state at each row's own end.

    Args:
        module: one layer, one direction; its current weights (W, U, b, c) are used, its kernel is not.
        inputs: (N, D) time-major, as in a `PackedSequence`: every row's first token, longest row first, and so on.
        batch_sizes: number of rows that are still running at each step.
        state: the state of all rows at their start, (R, H) each, longest row first.
        keep: function of a step's gates and state that returns the output of the step.
    """
    cell, (w, u, b, c) = CELLS[module.mode], cell_weights(module)
    outputs, final_states = [], []
    for step_inputs in torch.split(inputs, batch_sizes):
        running = len(step_inputs)
        final_states.append(tuple(part[running:] for part in state))  # states of the rows that have just ended
        state = tuple(part[:running] for part in state)
        gates, state = cell(F.linear(step_inputs, w, b), F.linear(state[0], u, c), state)
        outputs.append(keep(gates, state))
    return torch.cat(outputs), concatenate_states([*final_states, state])


def concatenate_states(final_states: Sequence[RecurrentState]) -> RecurrentState:
    """Return the final states of all rows, longest row first, given those of the rows that end at each step in turn."""
    # the shortest rows end first, so the reversed order is longest row first
    return tuple(torch.cat(part) for part in zip(*reversed(final_states), strict=True))
