"""One direction of one recurrent layer over ragged rows; the backward direction starts at each row's own end.

Two one-directional modules with a reversal by row lengths equal torch's packed bidirectional ones, and keep the fused
kernels for rectangles (torch's own `bidirectional=True` reads padding first). On a CPU torch's packed sequences leave
the fused kernel, and their backward fills zeros for the whole sequence at each step. So there an LSTM's rows of
different lengths run as a few rectangles, whichever the layout; GRUs and tanh RNNs, of which torch has no fused kernel,
run unrolled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.profiler import record_function

from runner.layers.recurrent.cells import PARTS, Carried, everything, stepped
from runner.layers.recurrent.unrolled import UNROLLED, unrolled
from runner.layers.staircase import Staircase, moved
from runner.layers.weight_drop import WeightDrop
from runner.profiling.kernels import FLOAT32_LSTM, runs
from runner.ragged.ragged import Ragged

log = logging.getLogger(__name__)
Cell = Literal["rnn", "gru", "lstm"]
_MODULES: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrence(nn.Module):
    """A recurrent layer in one direction.

    Args:
        cell: tanh `rnn` (Elman 1990), `gru` (Cho et al. 2014) or `lstm` (Hochreiter and Schmidhuber 1997).
        input_size: D.
        hidden: H.
        reverse: read each row from its own end.
        weight_drop: probability of dropping a hidden-to-hidden weight (`runner.layers.weight_drop`).
    """

    def __init__(self, cell: Cell, input_size: int, hidden: int, reverse: bool, weight_drop: float = 0.0) -> None:
        super().__init__()
        self.weight_drop = WeightDrop(weight_drop)
        self.cell = _MODULES[cell](input_size, hidden, batch_first=True)
        self.hidden, self.reverse, self.is_lstm = hidden, reverse, cell == "lstm"

    def forward(self, x: Ragged, state: Carried | None) -> tuple[Ragged, Carried | None]:
        """Rows of (length, D), state at their begin -> rows of (length, H), state at each row's own end.

        A state is (B, H) hidden, and (B, H) cell of an LSTM; () is zeros, at the begin of a text.

        An empty row keeps its state. Without a state (None) rows stand by themselves, and none comes out.
        """
        with self.weight_drop.of(self.cell):
            if x.values.device.type == "cpu" and not x.rows.stepped and (self._unrolls(x) or self._uneven(x, state)):
                return self._in_blocks(x, state)
            if not self.reverse:
                return self._run(x, state)
            output, end = self._run(reversed_rows(x), state)
            return reversed_rows(output), end

    @property
    def parts(self) -> tuple[str, ...]:
        """What `exposed` shows at each token: gates, then state."""
        return PARTS[self.cell.mode]

    def exposed(self, x: Ragged, state: Carried | None) -> Ragged:
        """What `forward` computes on its way, cell by cell: rows of (length, D) -> packed rows of (length, P, H)."""
        packed = x.with_values(x.filled(0.0)).pack()
        if not x.rows.n_tokens:
            return packed.with_values(packed.values.new_zeros(0, len(self.parts), self.hidden))
        read = reversed_rows(packed) if self.reverse else packed
        time = read.rows.time_major
        inputs = permuted(read.values, time.tokens, time.inverse)
        begin = tuple(one.index_select(0, time.row_order) for one in self._begin(read, state))
        steps, _ = stepped(self.cell, inputs, time.batch_sizes.tolist(), begin, keep=everything)
        found = read.with_values(permuted(steps, time.inverse, time.tokens))
        return reversed_rows(found) if self.reverse else found

    def _run(self, x: Ragged, state: Carried | None) -> tuple[Ragged, Carried | None]:
        rows = x.rows
        width = rows.max_len if x.layout == "packed" else rows.width
        if rows.n_tokens == 0:
            nothing = x.values.new_zeros(*x.values.shape[:-1], self.hidden)
            return x.with_values(nothing), None if state is None else self._begin(x, state)
        if rows.stepped:
            output, end = self._packed(x.pack(), self._begin(x, state))
            packed = Ragged(output, rows, "packed")
            return packed.pad() if x.layout == "padded" else packed, None if state is None else end
        if rows.n_tokens == rows.n_rows * width:  # equally long: a rectangle, whichever the layout
            output, end = self._call(x.values.reshape(rows.n_rows, width, -1), self._begin(x, state))
            return x.with_values(output.reshape(*x.values.shape[:-1], self.hidden)), None if state is None else end
        if x.layout == "packed":
            output, end = self._packed(x, self._begin(x, state))
            return x.with_values(output), None if state is None else end
        if state is None:  # padding comes behind each row, so no real token hears of it
            return x.with_values(self._call(x.filled(0.0), self._begin(x, state))[0]), None
        # a rectangle's kernel shows no LSTM's cell at a row's own end
        carried, end = self._packed(x.pack(), self._begin(x, state))
        return Ragged(carried, rows, "packed").pad(), end

    def _uneven(self, x: Ragged, state: Carried | None) -> bool:
        """Whether rows are to run in several rectangles; or, packed, in one that holds padding."""
        rows = x.rows
        if rows.n_tokens in (0, rows.n_rows * (rows.max_len if x.layout == "packed" else rows.width)):
            return False
        return x.layout == "packed" or state is not None or len(Staircase.of(rows, self._call_places).blocks) > 1

    def _unrolls(self, x: Ragged) -> bool:
        """Whether rows are to run step by step with a gradient written out, whichever the layout.

        Not under autocast, whose arithmetic torch decides on. Rows of equal length, over which torch's own steps are as
        fast, only where they are few and long (docs/notes/performance.md).
        """
        rows = x.rows
        if self.cell.mode not in UNROLLED or torch.is_autocast_enabled("cpu") or not rows.n_tokens:
            return False
        even = rows.n_tokens == rows.n_rows * rows.max_len
        return not even or (torch.is_grad_enabled() and rows.n_rows <= 16 <= rows.max_len)

    def _in_blocks(self, x: Ragged, state: Carried | None) -> tuple[Ragged, Carried | None]:
        """As `forward`, in a staircase of rectangles or unrolled; what stands in padding is not read."""
        # a kernel shows no LSTM's cell but at the end of its rectangle: with a state, every row ends at such an end
        unrolls = self._unrolls(x)
        stairs = Staircase.of(x.rows, None if unrolls or state is not None else self._call_places)
        places = stairs.reversed_places if self.reverse else stairs.places
        source, tokens = (None, x.values) if x.layout == "packed" else (x.rows.flat, x.values.flatten(0, 1))
        laid = moved(tokens, source, places, sum(stairs.sizes))
        states = self._begin(x, state)
        begin = tuple(one.index_select(0, stairs.row_order) for one in states)
        output, end = (self._unrolled if unrolls else self._rectangles)(laid, stairs, begin)
        values = moved(output, places, source, len(tokens)).view(*x.values.shape[:-1], self.hidden)
        if state is None:
            return x.with_values(values), None
        kept = (old.to(new.dtype).index_copy(0, stairs.row_order, new) for old, new in zip(states, end, strict=True))
        return x.with_values(values), tuple(kept)

    def _rectangles(self, laid: Tensor, stairs: Staircase, running: Carried) -> tuple[Tensor, Carried]:
        """(M, D) and states, longest row first -> (M, H) and states where rectangles end: torch's module over each."""
        outputs, ended = [], []
        for block, (steps, n_rows) in zip(torch.split(laid, stairs.sizes), stairs.blocks, strict=True):
            ended.append(tuple(one[n_rows:] for one in running))
            running = tuple(one[:n_rows] for one in running)
            output, running = self._call(block.view(steps, n_rows, -1).transpose(0, 1), running)
            outputs.append(output.transpose(0, 1).flatten(0, 1))
        ended.append(running)  # of the longest rows
        return torch.cat(outputs), tuple(torch.cat(part) for part in zip(*reversed(ended), strict=True))

    def _unrolled(self, laid: Tensor, stairs: Staircase, begin: Carried) -> tuple[Tensor, Carried]:
        """The same without padding, M = N, and states at each row's own end."""
        weights = [one for one in self.cell._flat_weights if one is not None]
        output = unrolled(self.cell.mode, laid, weights, begin[0], stairs.running)
        return output, (output.index_select(0, stairs.last_places),)

    @property
    def _call_places(self) -> float:
        """Places that take as long, forward and backward, as one more call of the kernel (docs/notes/performance.md).

        A call costs about 250 us, and a place by the size of the weights.
        """
        return 40.0 + 1.2e6 / self.hidden**2

    def _begin(self, x: Ragged, state: Carried | None) -> Carried:
        """The state given, or zeros for each row."""
        zeros = x.values.new_zeros(x.rows.n_rows, self.hidden)
        return state or ((zeros, zeros) if self.is_lstm else (zeros,))

    def _packed(self, x: Ragged, state: Carried) -> tuple[Tensor, Carried]:
        """(N, D), state -> (N, H), state; as a `PackedSequence`, in which empty rows do not run."""
        time = x.rows.time_major
        inputs = permuted(x.values, time.tokens, time.inverse)
        begin = tuple(one.index_select(0, time.row_order) for one in state)
        if x.rows.stepped:
            output, end = stepped(self.cell, inputs, time.batch_sizes.tolist(), begin)
        else:
            sequence, end = self._call(PackedSequence(inputs, time.batch_sizes), begin)
            output = sequence.data
        kept = tuple(old.to(new.dtype).index_copy(0, time.row_order, new) for old, new in zip(state, end, strict=True))
        return permuted(output, time.inverse, time.tokens), kept

    def _call(self, inputs: Any, state: Carried) -> tuple[Any, Carried]:
        """Torch's module, whose states have a first dimension for layers and no tuple for one part."""
        parts = tuple(one[None] for one in state)
        if self._needs_float32(inputs):
            # autocast would choose a kernel that this processor lacks, and end in an error
            with record_function(FLOAT32_LSTM), torch.autocast("cpu", enabled=False):
                output, end = self.cell(inputs.float(), tuple(one.float() for one in parts))
        else:
            output, end = self.cell(inputs, parts if self.is_lstm else parts[0])
        return output, (end[0][0], end[1][0]) if self.is_lstm else (end[0],)

    def _needs_float32(self, inputs: Any) -> bool:
        """Return whether autocast is on for an arithmetic in which this machine runs no LSTM."""
        if not self.is_lstm or not torch.is_autocast_enabled("cpu"):
            return False
        dtype = torch.get_autocast_dtype("cpu")
        training = torch.is_grad_enabled()
        device_type = (inputs.data if isinstance(inputs, PackedSequence) else inputs).device.type
        if device_type != "cpu" or runs("lstm", dtype, "cpu", training):
            return False
        _warn_of_float32(dtype)
        return True


@cache
def _warn_of_float32(dtype: torch.dtype) -> None:
    """Say once that LSTMs do not run in the arithmetic that was asked for."""
    name = str(dtype).removeprefix("torch.")
    log.warning(
        "this processor has no %s LSTM (%s): LSTMs compute in float32", name, torch.backends.cpu.get_cpu_capability()
    )


def reversed_rows(x: Ragged) -> Ragged:
    """Each row read from its own end; padding stays in place. Twice gives `x` again."""
    if x.rows.n_rows == 1 and x.layout == "packed":  # as of batching=size1, where an index map costs more than it moves
        return x.with_values(x.values.flip(0))
    if x.layout == "packed":
        return x.with_values(permuted(x.values, x.rows.packed_reversal, x.rows.packed_reversal))
    starts = torch.arange(x.rows.n_rows, device=x.values.device)[:, None] * x.rows.width
    order = (starts + x.rows.padded_reversal).flatten()
    return x.with_values(permuted(x.values.flatten(0, 1), order, order).view(x.values.shape))


def permuted(values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """`values[order]` for a permutation and its inverse: (N, *) -> (N, *).

    The gradient of a permutation is a read by its inverse; that of `index_select` is a scattered sum, slower by far.
    """
    result: Tensor = _Permuted.apply(values, order, inverse)  # type: ignore[no-untyped-call]
    return result


class _Permuted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return values.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None
