"""Dropout (Srivastava et al. 2014) that is reproducible per row if rows have seeds.

By default, random numbers come from torch's global generator, so the dropout of a row depends on the other rows of its
batch. On a CPU, 16 random bits decide about each value (`torch.nn.functional.dropout` takes five times as long). If
rows have seeds (`Batch.with_seeds`), the dropped values of a row depend only on its seed, the layer's number, the
position and the feature. They are then the same in every layout, width and batch.

The random function is SplitMix64 (Steele, Lea and Flood 2014): a counter times an odd constant, mixed so that each bit
of the input flips each bit of the output with probability 1/2. int64 wraps around like the paper's unsigned numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.errors import HydromelError, quoted
from runner.compat.torch import with_cell_weights
from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows


def _signed(bits: int) -> int:
    """Return the int64 with these 64 bits."""
    return bits - 2**64 if bits >= 2**63 else bits


_STEP, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_LARGEST = 2**63 - 1


class Dropout(nn.Module):
    """In training, set each value to 0 with probability `p` (below 1) and divide the others by 1 - p.

    If rows have seeds, `number` distinguishes this layer from the others of a model; see `number_dropout_layers`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.number = p, 0

    @property
    def has_randomness(self) -> bool:
        return self.p > 0.0

    def forward(self, values: Tensor, rows: Rows, layout: Layout) -> Tensor:
        """Drop values, (N, *) if packed or (B, T, *) if padded. For one vector per row, pass `rows.single`, packed."""
        if not self.training or self.p == 0.0:
            return values
        if rows.seeds is None:
            return drop_values(values, self.p)
        keys = self._keys(rows, rows.seeds, layout)
        for size in values.shape[keys.dim() :]:
            keys = splitmix64(keys[..., None], torch.arange(size, device=keys.device))
        return values.masked_fill(self.drop_mask(keys), 0.0) / (1.0 - self.p)

    def drop_mask(self, keys: Tensor) -> Tensor:
        """Return a bool mask, true with probability `p`, from random int64 numbers of the same shape."""
        return (keys & _LARGEST) < int(self.p * 2**63)  # 63 random bits as a fraction of 2**63

    def apply_to(self, x: Ragged) -> Ragged:
        """Drop values of rows of (length, *)."""
        dropped: Tensor = self(x.values, x.rows, x.layout)
        return x.with_values(dropped)

    def _keys(self, rows: Rows, seeds: Tensor, layout: Layout) -> Tensor:
        """Return a random number for each place, (N,) or (B, T) int64."""
        row_keys = splitmix64(seeds, torch.full_like(seeds, self.number))
        if layout == "packed":
            return splitmix64(row_keys.index_select(0, rows.row), rows.position)
        return splitmix64(row_keys[:, None], torch.arange(rows.width, device=row_keys.device))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LockedDropout(nn.Module):
    """Drop the same features at every token of a row, others for each row (Gal and Ghahramani 2016)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = Dropout(p)

    def apply_to(self, x: Ragged) -> Ragged:
        """Drop values of rows of (length, *)."""
        if not self.training or self.dropout.p == 0.0:
            return x
        trailing = x.values.shape[1 if x.layout == "packed" else 2 :]
        ones = torch.ones(x.rows.n_rows, *trailing, device=x.values.device)
        dropped = self.dropout(ones, x.rows.single, "packed") == 0.0
        dropped = dropped.index_select(0, x.rows.row) if x.layout == "packed" else dropped[:, None]
        return x.map(lambda values: values.masked_fill(dropped, 0.0) / (1.0 - self.dropout.p))


class TypeDropout(nn.Module):
    """Drop whole types: the vector of a dropped type is 0 at every place of the row (Gal and Ghahramani 2016).

    Each row draws its own types in each update. (AWD-LSTM draws once for all rows of an update.)
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = Dropout(p)

    def apply_to(self, x: Ragged, ids: Ragged) -> Ragged:
        """Drop vectors of rows of (length, D), given the ids of their types in the same layout."""
        if not self.training or self.dropout.p == 0.0:
            return x
        seeds, rows = x.rows.seeds, x.rows
        if seeds is None:
            seeds = torch.randint(_LARGEST, (rows.n_rows,), device=x.values.device)
        row_keys = splitmix64(seeds, torch.full_like(seeds, self.dropout.number))
        keys = row_keys.index_select(0, rows.row) if x.layout == "packed" else row_keys[:, None]
        dropped = self.dropout.drop_mask(splitmix64(keys, ids.values))[..., None]
        return x.map(lambda values: values.masked_fill(dropped, 0.0) / (1.0 - self.dropout.p))


class WeightDrop(nn.Module):
    """In training, set each hidden-to-hidden weight to 0 with probability `drop` and divide the others by 1 - drop.

    This is DropConnect (Wan et al. 2013) as in AWD-LSTM (Merity et al. 2017). All rows and steps of a forward pass
    share one mask; the next pass draws another. So this is the one dropout that row seeds do not control.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    @property
    def has_randomness(self) -> bool:
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


def drop_values(values: Tensor, p: float) -> Tensor:
    """Drop each value with probability `p` and divide the others by 1 - p, with torch's global generator.

    On a CPU, `p` is rounded to a multiple of 1/65536 (0.3 becomes 0.300003). Kept values are divided by the rounded
    1 - p, so the expected value is exact.
    """
    if values.device.type != "cpu":
        return F.dropout(values, p)
    # four 16-bit numbers come from each random 64-bit number; a value is kept if its number is not among the lowest
    n_numbers, drops = values.numel(), min(round(p * 2**16), 2**16 - 1)
    bits = torch.empty(-(-n_numbers // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[:n_numbers].view(values.shape) >= drops - 2**15
    return values * kept.to(values.dtype).mul_(2**16 / (2**16 - drops))


def locked_layers(rates: float | Sequence[float], places: int) -> nn.ModuleList:
    """Return locked dropout layers for `places`, with one rate for all or a list with one for each."""
    all_rates = [rates] * places if isinstance(rates, float | int) else [*rates]
    if len(all_rates) != places:
        raise HydromelError(
            f"encoder.locked_dropout={quoted(all_rates)} has {len(all_rates)} numbers; "
            f"give {places}: one for each layer's input and one for the last output"
        )
    return nn.ModuleList(LockedDropout(rate) for rate in all_rates)


def row_seeds(numbers: Tensor, seed: int, update: int) -> Tensor:
    """Return a seed for each row of an update, (B,) int64, by the rows' numbers (B,) in the training set."""
    of_update = splitmix64(torch.full_like(numbers, seed), torch.full_like(numbers, update))
    return splitmix64(of_update, numbers)


def splitmix64(keys: Tensor, counter: Tensor) -> Tensor:
    """Return the `counter`-th number (from 0) that SplitMix64 draws from the seeds `keys`; int64, broadcast."""
    bits = keys + (counter + 1) * _STEP
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift to the right and fill with zeros (torch's own shift copies the sign)."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def number_dropout_layers(model: nn.Module) -> None:
    """Number the dropout layers of a model, so that each draws different random numbers from a row's seed."""
    for number, layer in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        layer.number = number
