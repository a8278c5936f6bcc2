"""One direction of one recurrent layer over ragged rows; the backward direction starts at each row's own end.

Two one-directional modules with a reversal by row lengths equal torch's bidirectional module on packed sequences, and
can still use the fused kernels for rectangles (on padded rows, torch's own `bidirectional=True` reads padding first).

On a CPU, torch's packed sequences do not use the fused kernel, and their backward pass fills zeros for the whole
sequence at each step. So on a CPU, rows of different lengths run as a few rectangles (LSTM) or unrolled (GRU and tanh
RNN, which have no fused CPU kernel in torch), in either layout.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.profiler import record_function

from runner.compat.torch import cell_weights
from runner.layers.dropout import WeightDrop
from runner.layers.moves import move_places, permute
from runner.layers.recurrent.cells import PARTS, RecurrentState, concatenate_states, run_steps, stack_gates_and_states
from runner.layers.recurrent.unrolled import UNROLLED, run_unrolled
from runner.layers.staircase import Staircase
from runner.profiling.kernels import FLOAT32_LSTM, runs
from runner.ragged.ragged import Ragged

Inputs = TypeVar("Inputs", Tensor, PackedSequence)

log = logging.getLogger(__name__)
Cell = Literal["rnn", "gru", "lstm"]
_MODULES: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrence(nn.Module):
    """A recurrent layer in one direction; with `reverse`, it reads each row from its own end.

    The cell is tanh `rnn` (Elman 1990), `gru` (Cho et al. 2014) or `lstm` (Hochreiter and Schmidhuber 1997).
    `weight_drop` is the probability of dropping a hidden-to-hidden weight (`WeightDrop`).
    """

    def __init__(self, cell: Cell, input_size: int, hidden: int, reverse: bool, weight_drop: float = 0.0) -> None:
        super().__init__()
        self.weight_drop = WeightDrop(weight_drop)
        self.cell = _MODULES[cell](input_size, hidden, batch_first=True)
        self.hidden, self.reverse, self.is_lstm = hidden, reverse, cell == "lstm"
        self.parts = PARTS[self.cell.mode]  # names of the tensors that `gates_and_states` returns for each token

    def forward(self, x: Ragged, state: RecurrentState | None) -> tuple[Ragged, RecurrentState | None]:
        """Map rows of (length, D) and the state at their start to rows of (length, H) and the state at each row's end.

        A state is (B, H) hidden and, for an LSTM, (B, H) cell; () stands for zeros, at the start of a text. An empty
        row keeps its state. With None, rows are independent: they start from zeros and None is returned.
        """
        with self.weight_drop.apply_to(self.cell):
            if self._runs_unrolled(x) or self._runs_rectangles(x, state):
                return self._run_staircase(x, state)
            if not self.reverse:
                return self._run(x, state)
            output, end = self._run(reverse_rows(x), state)
            return reverse_rows(output), end

    def gates_and_states(self, x: Ragged, state: RecurrentState | None) -> Ragged:
        """Return all gates and states of `forward`: rows of (length, D) -> packed rows of (length, P, H), P parts."""
        packed = x.with_values(x.filled(0.0)).pack()
        if not x.rows.n_tokens:
            return packed.with_values(packed.values.new_zeros(0, len(self.parts), self.hidden))
        read = reverse_rows(packed) if self.reverse else packed
        time = read.rows.time_major
        inputs = permute(read.values, time.tokens, time.inverse)
        start = tuple(part.index_select(0, time.row_order) for part in self._initial(read, state))
        steps, _ = run_steps(self.cell, inputs, time.batch_sizes.tolist(), start, keep=stack_gates_and_states)
        parts = read.with_values(permute(steps, time.inverse, time.tokens))
        return reverse_rows(parts) if self.reverse else parts

    def _run(self, x: Ragged, state: RecurrentState | None) -> tuple[Ragged, RecurrentState | None]:
        """Run rows from their first token to their last by torch's module, as a rectangle or a packed sequence."""
        rows, initial = x.rows, self._initial(x, state)
        width = rows.max_len if x.layout == "packed" else rows.width
        if rows.n_tokens == 0:
            output, end = x.values.new_zeros(*x.values.shape[:-1], self.hidden), initial
        elif not rows.stepwise and rows.is_rectangle(width):  # equal lengths: a rectangle in either layout
            output, end = self._call_module(x.values.reshape(rows.n_rows, width, -1), initial)
            output = output.reshape(*x.values.shape[:-1], self.hidden)
        elif not rows.stepwise and x.layout == "padded" and state is None:
            # padding follows each row, so it cannot affect a real token, only the final state, which is not returned
            output, end = self._call_module(x.filled(0.0), initial)
        else:
            output, end = self._run_packed(x.pack(), initial)
            output = Ragged(output, rows, "packed").pad().values if x.layout == "padded" else output
        return x.with_values(output), None if state is None else end

    def _runs_rectangles(self, x: Ragged, state: RecurrentState | None) -> bool:
        """Return whether rows run in blocks of similar lengths (CPU only); rows without padding are one block."""
        rows = x.rows
        if not x.prefers_packed or rows.stepwise:
            return False
        if rows.n_tokens in (0, rows.n_rows * (rows.max_len if x.layout == "packed" else rows.width)):
            return False
        return x.layout == "packed" or state is not None or len(Staircase.of(rows, self._call_cost).blocks) > 1

    def _runs_unrolled(self, x: Ragged) -> bool:
        """Return whether rows run step by step with a hand-written gradient, in either layout.

        Never under autocast, where torch chooses the precision of each operation. On rows of equal length torch's own
        steps are as fast, except for few and long rows in training (docs/notes/performance.md).
        """
        rows = x.rows
        if not x.prefers_packed or rows.stepwise or not rows.n_tokens:
            return False
        if self.cell.mode not in UNROLLED or torch.is_autocast_enabled("cpu"):
            return False
        equal_lengths = rows.n_tokens == rows.n_rows * rows.max_len
        return not equal_lengths or (torch.is_grad_enabled() and rows.n_rows <= 16 <= rows.max_len)

    def _run_staircase(self, x: Ragged, state: RecurrentState | None) -> tuple[Ragged, RecurrentState | None]:
        """Compute `forward` as a staircase of rectangles or unrolled; padding is never read."""
        # A kernel returns an LSTM's cell state only at the end of its rectangle. So if states are carried, every row
        # has to end at the end of a rectangle: time is cut wherever a row ends, whatever the extra calls cost. An
        # unrolled layer takes the same cuts, since its steps have no padding.
        unrolls = self._runs_unrolled(x)
        stairs = Staircase.of(x.rows, None if unrolls or state is not None else self._call_cost)
        # One move brings tokens from either layout to time-major order, and reverses the rows of a backward layer on
        # the way; the opposite move brings outputs back.
        places = stairs.reversed_places if self.reverse else stairs.places
        source, tokens = (None, x.values) if x.layout == "packed" else (x.rows.flat, x.values.flatten(0, 1))
        inputs = move_places(tokens, source, places, sum(stairs.sizes))
        initial = self._initial(x, state)
        start = tuple(part.index_select(0, stairs.row_order) for part in initial)
        if unrolls:
            output = run_unrolled(self.cell.mode, inputs, cell_weights(self.cell), start[0], stairs.running)
            end: RecurrentState = (output.index_select(0, stairs.last_places),)
        else:
            output, end = self._run_blocks(inputs, stairs, start)
        values = move_places(output, places, source, len(tokens)).view(*x.values.shape[:-1], self.hidden)
        return x.with_values(values), None if state is None else _replaced(initial, stairs.row_order, end)

    def _run_blocks(self, inputs: Tensor, stairs: Staircase, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Run torch's module over each block: (M, D) and states, longest row first -> (M, H) and final states."""
        # The state of a row is final after the last block that contains it. Rows that end inside that block have run
        # over padding by then, so their state is meaningful only without padding.
        outputs, final_states = [], []
        for block, (steps, n_rows) in zip(torch.split(inputs, stairs.sizes), stairs.blocks, strict=True):
            final_states.append(tuple(part[n_rows:] for part in state))
            state = tuple(part[:n_rows] for part in state)
            output, state = self._call_module(block.view(steps, n_rows, -1).transpose(0, 1), state)
            outputs.append(output.transpose(0, 1).flatten(0, 1))
        return torch.cat(outputs), concatenate_states([*final_states, state])

    @property
    def _call_cost(self) -> float:
        """The cost of one more kernel call, forward and backward, in places (docs/notes/performance.md).

        A call costs about 250 us; the cost of a place grows with the size of the weights.
        """
        return 40.0 + 1.2e6 / self.hidden**2

    def _initial(self, x: Ragged, state: RecurrentState | None) -> RecurrentState:
        """Return the given state, or zeros for each row."""
        zeros = x.values.new_zeros(x.rows.n_rows, self.hidden)
        return state or ((zeros, zeros) if self.is_lstm else (zeros,))

    def _run_packed(self, x: Ragged, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Run a `PackedSequence`: (N, D) and state -> (N, H) and state. Empty rows are not part of it."""
        time = x.rows.time_major
        inputs = permute(x.values, time.tokens, time.inverse)
        start = tuple(part.index_select(0, time.row_order) for part in state)
        if x.rows.stepwise:
            output, end = run_steps(self.cell, inputs, time.batch_sizes.tolist(), start)
        else:
            sequence, end = self._call_module(PackedSequence(inputs, time.batch_sizes), start)
            output = sequence.data
        return permute(output, time.inverse, time.tokens), _replaced(state, time.row_order, end)

    def _call_module(self, inputs: Inputs, state: RecurrentState) -> tuple[Inputs, RecurrentState]:
        """Call torch's module, whose states have a first dimension for layers; a state of one part is not a tuple."""
        parts = tuple(part[None] for part in state)
        if self._needs_float32(inputs):
            # autocast would choose a kernel that this processor lacks, and fail
            with record_function(FLOAT32_LSTM), torch.autocast("cpu", enabled=False):
                output, end = self.cell(inputs.float(), tuple(part.float() for part in parts))
        else:
            output, end = self.cell(inputs, parts if self.is_lstm else parts[0])
        return output, (end[0][0], end[1][0]) if self.is_lstm else (end[0],)

    def _needs_float32(self, inputs: Tensor | PackedSequence) -> bool:
        """Return whether autocast asks for a dtype for which this machine has no LSTM kernel."""
        if not self.is_lstm or not torch.is_autocast_enabled("cpu"):
            return False
        dtype, values = torch.get_autocast_dtype("cpu"), inputs.data if isinstance(inputs, PackedSequence) else inputs
        if values.device.type != "cpu" or runs("lstm", dtype, "cpu", torch.is_grad_enabled()):
            return False
        _warn_of_float32(dtype)
        return True


def _replaced(initial: RecurrentState, row_order: Tensor, end: RecurrentState) -> RecurrentState:
    """Return the final states: `end` of the rows in `row_order`; rows without tokens ran nowhere and keep theirs."""
    pairs = zip(initial, end, strict=True)
    return tuple(old.to(new.dtype).index_copy(0, row_order, new) for old, new in pairs)


@cache
def _warn_of_float32(dtype: torch.dtype) -> None:
    """Warn once that LSTMs do not run in the requested dtype."""
    name, capability = str(dtype).removeprefix("torch."), torch.backends.cpu.get_cpu_capability()
    log.warning("this processor has no %s LSTM kernel (%s); LSTMs compute in float32 instead", name, capability)


def reverse_rows(x: Ragged) -> Ragged:
    """Return each row in reverse order, with padding in place. Reversing twice restores `x`."""
    if x.rows.n_rows == 1 and x.layout == "packed":  # batching=size1, where making an index map would cost more
        return x.with_values(x.values.flip(0))
    if x.layout == "packed":
        return x.with_values(permute(x.values, x.rows.packed_reversal, x.rows.packed_reversal))
    starts = torch.arange(x.rows.n_rows, device=x.values.device)[:, None] * x.rows.width
    order = (starts + x.rows.padded_reversal).flatten()
    return x.with_values(permute(x.values.flatten(0, 1), order, order).view(x.values.shape))
