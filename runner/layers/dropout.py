"""Dropout (Srivastava et al. 2014) that can be told, row by row, what to drop.

As a rule the numbers to be dropped are drawn from torch's one generator, so what a row loses depends on who stands
beside it. On a CPU 16 random bits decide on a number (`torch.nn.functional.dropout` takes five times as long). Where
rows bring seeds (`Batch.with_seeds`), what a row loses is a function of its seed, the layer's number, the position and
the feature alone: the same in every layout, width and company.

The function is SplitMix64 (Steele, Lea and Flood 2014): a counter times an odd constant, mixed so that each bit of the
input flips each bit of the output with probability 1/2. int64 wraps around like the paper's unsigned numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows


def _signed(bits: int) -> int:
    """The int64 of these 64 bits."""
    return bits - 2**64 if bits >= 2**63 else bits


_STEP, _FIRST, _SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_LARGEST = 2**63 - 1


class Dropout(nn.Module):
    """Drop each number with probability `p` in training, and divide the others by 1 - p.

    Args:
        p: 0 to below 1.

    Attributes:
        number: tells this layer from the others of a model where rows bring seeds; see `numbered`.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.number = p, 0

    def forward(self, values: Tensor, rows: Rows, layout: Layout) -> Tensor:
        """(N, *) if packed, (B, T, *) if padded -> the same. For one vector a row: `rows.single`, packed."""
        if not self.training or self.p == 0.0:
            return values
        if rows.seeds is None:
            return dropped_out(values, self.p)
        keys = self._keys(rows, rows.seeds, layout)
        for size in values.shape[keys.dim() :]:
            keys = drawn(keys[..., None], torch.arange(size, device=keys.device))
        return values.masked_fill(self.drops(keys), 0.0) / (1.0 - self.p)

    def drops(self, keys: Tensor) -> Tensor:
        """True where random numbers, int64, say so: with probability `p`."""
        return (keys & _LARGEST) < int(self.p * 2**63)  # 63 random bits as a fraction of 2**63

    def of(self, x: Ragged) -> Ragged:
        """Rows of (length, *) -> the same."""
        dropped: Tensor = self(x.values, x.rows, x.layout)
        return x.with_values(dropped)

    def _keys(self, rows: Rows, seeds: Tensor, layout: Layout) -> Tensor:
        """(N,) or (B, T) int64, one a place."""
        of_row = drawn(seeds, torch.full_like(seeds, self.number))
        if layout == "packed":
            return drawn(of_row.index_select(0, rows.row), rows.position)
        return drawn(of_row[:, None], torch.arange(rows.width, device=of_row.device))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LockedDropout(nn.Module):
    """Drop the same numbers at every token of a row, each row its own (variational dropout, Gal and Ghahramani 2016).

    Args:
        p: 0 to below 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = Dropout(p)

    def of(self, x: Ragged) -> Ragged:
        """Rows of (length, *) -> the same."""
        if not self.training or self.dropout.p == 0.0:
            return x
        trailing = x.values.shape[1 if x.layout == "packed" else 2 :]
        ones = torch.ones(x.rows.n_rows, *trailing, device=x.values.device)
        dropped = self.dropout(ones, x.rows.single, "packed") == 0.0
        dropped = dropped.index_select(0, x.rows.row) if x.layout == "packed" else dropped[:, None]
        return x.map(lambda values: values.masked_fill(dropped, 0.0) / (1.0 - self.dropout.p))


class TypeDropout(nn.Module):
    """Drop whole types: at each place of a row where a dropped one stands, all of its vector (Gal and Ghahramani 2016).

    Each row draws for itself, and anew in each update. (AWD-LSTM draws once for all rows of an update.)

    Args:
        p: 0 to below 1.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = Dropout(p)

    def of(self, x: Ragged, ids: Ragged) -> Ragged:
        """Rows of (length, D), and the ids of their types in the same layout -> the same."""
        if not self.training or self.dropout.p == 0.0:
            return x
        seeds, rows = x.rows.seeds, x.rows
        if seeds is None:
            seeds = torch.randint(_LARGEST, (rows.n_rows,), device=x.values.device)
        of_row = drawn(seeds, torch.full_like(seeds, self.dropout.number))
        keys = of_row.index_select(0, rows.row) if x.layout == "packed" else of_row[:, None]
        dropped = self.dropout.drops(drawn(keys, ids.values))[..., None]
        return x.map(lambda values: values.masked_fill(dropped, 0.0) / (1.0 - self.dropout.p))


def dropped_out(values: Tensor, p: float) -> Tensor:
    """Each number dropped with probability `p`, 0 to below 1, and the others divided by 1 - p; by torch's generator.

    On a CPU `p` counts to the nearest 65,536th (0.3 is 0.300003), and what is kept is divided by the share that is
    kept indeed, so that the expected value stays exact.
    """
    if values.device.type != "cpu":
        return F.dropout(values, p)
    n_numbers, drops = values.numel(), min(round(p * 2**16), 2**16 - 1)
    bits = torch.empty(-(-n_numbers // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[:n_numbers].view(values.shape) >= drops - 2**15
    return values * kept.to(values.dtype).mul_(2**16 / (2**16 - drops))


def locked_layers(rates: float | Sequence[float], places: int) -> nn.ModuleList:
    """Locked dropout for so many places, at one rate or at one each.

    Raises:
        HydromelError: another number of rates.
    """
    each = [rates] * places if isinstance(rates, float) else [*rates]
    if len(each) != places:
        raise HydromelError(
            f"encoder.locked_dropout={each}: {places} numbers are needed, for each layer's input and the last output"
        )
    return nn.ModuleList(LockedDropout(rate) for rate in each)


def drawn(keys: Tensor, counter: Tensor) -> Tensor:
    """The `counter`-th number, from 0, that SplitMix64 draws from the seed `keys`; int64, broadcast to each other."""
    bits = keys + (counter + 1) * _STEP
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """To the right, zeros moving in (torch's own shift copies the sign)."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def numbered(model: nn.Module) -> None:
    """Number the dropout layers of a model, so that each of them draws by itself from a row's seed."""
    for number, layer in enumerate(one for one in model.modules() if isinstance(one, Dropout)):
        layer.number = number
