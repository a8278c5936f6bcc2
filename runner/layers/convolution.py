"""One-dimensional convolutions over the tokens of each row, zeros beyond its edges; other rows are not seen.

Over few numbers a token they are, on a CPU, matrix products over the windows of real tokens, of several widths side by
side; otherwise torch's convolutions.

Shapes: B rows, N tokens in all, D inputs, V places that the widest window sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.layers.staircase import moved, packed_tokens
from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows

PRODUCT_SIZE = 64  # numbers a token up to which products of windows are faster on a CPU (docs/notes/performance.md)
CROWDED = 0.8  # share of real tokens from which a padded rectangle is convolved as it is, on a CPU
Span = tuple[int, int]  # the first place of a window that is seen, and that behind the last


class Convolution(nn.Module):
    """y[t] = b + sum_k W[k] x[t - left + k], as cross-correlation, as many outputs as tokens.

    Args:
        input_size: D.
        filters: number of outputs a token.
        width: tokens that an output sees.
        causal: it sees only its own token and those before it; else `(width - 1) // 2` before it, the rest after.
    """

    def __init__(self, input_size: int, filters: int, width: int, causal: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_size, filters, width)
        self.left = width - 1 if causal else (width - 1) // 2
        self.right = width - 1 - self.left

    def forward(self, x: Ragged, before: Tensor | None) -> Ragged:
        """Rows of (length, D) -> rows of (length, filters).

        Args:
            before: (B, P, D) what stood before each row, P at least as many as its outputs see; None: zeros.
        """
        return side_by_side([self], x, before)

    def by_torch(self, x: Ragged, before: Tensor | None) -> Tensor:
        """The values of `forward` by torch's convolutions; padding of `x` is filled with zeros."""
        edge = None if before is None else before[:, before.shape[1] - self.left :].to(x.values.dtype)
        return self._padded(x.values, edge) if x.layout == "padded" else self._packed(x, edge)

    def _padded(self, values: Tensor, edge: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, filters), of rows behind their left edge, (B, left, D)."""
        if edge is None:
            return self._convolve(F.pad(values, (0, 0, self.left, self.right)))
        return self._convolve(F.pad(torch.cat([edge, values], dim=1), (0, 0, 0, self.right)))

    def _packed(self, x: Ragged, edge: Tensor | None) -> Tensor:
        """(N, filters), of one long row in which gaps part the rows, so that no output sees two of them.

        A gap has max(left, right) places: it is the right edge of one row, and ends as the left edge of the next. Zeros
        behind the last row make its length one that recurs.
        """
        gap, device = max(self.left, self.right), x.values.device
        places = torch.arange(x.rows.n_tokens, device=device) + (x.rows.row + 1) * gap
        size = recurring(x.rows.n_tokens + (x.rows.n_rows + 1) * gap)
        line = x.values.new_zeros(size, x.values.shape[-1])
        line = line.index_copy(0, places, x.values)
        if edge is not None:
            begins = x.rows.offsets[:-1] + torch.arange(1, x.rows.n_rows + 1, device=device) * gap
            edges = begins[:, None] + torch.arange(-self.left, 0, device=device)
            line = line.index_copy(0, edges.flatten(), edge.flatten(0, 1))
        return self._convolve(line[None])[0].index_select(0, places - self.left)

    def _convolve(self, rectangle: Tensor) -> Tensor:
        """(B, T, D) -> (B, T - left - right, filters)."""
        scores: Tensor = self.convolution(rectangle.transpose(1, 2))
        return scores.transpose(1, 2)


def recurring(size: int) -> int:
    """At least `size`, by a sixteenth at most, and one of 17 from each power of two to the next.

    For a size that it has not seen lately oneDNN makes a kernel anew, which takes as long as to run it.
    """
    step = 1 << max(0, size.bit_length() - 5)
    return -(-size // step) * step


def side_by_side(convolutions: Sequence[Convolution], x: Ragged, before: Tensor | None) -> Ragged:
    """Rows of (length, D) -> rows of (length, all filters), those of each convolution behind those of the one before.

    Args:
        before: as for a `Convolution`; P at least as many as any output sees.
    """
    if x.rows.n_tokens == 0:
        filters = sum(one.convolution.out_channels for one in convolutions)
        return x.with_values(x.values.new_zeros(*x.values.shape[:-1], filters))
    tokens = x.values if x.layout == "packed" else x.values.flatten(0, 1)
    if x.values.device.type != "cpu":
        return _by_torch(convolutions, x, before)
    if by_products(x, [tokens.shape[1]]):
        values = _by_products(convolutions, x, tokens, before)
    elif x.layout == "packed" or x.rows.n_tokens >= CROWDED * len(tokens):
        return _by_torch(convolutions, x, before)
    else:
        values = _by_torch(convolutions, Ragged(packed_tokens(x), x.rows, "packed"), before).values
    if x.layout == "padded":
        values = moved(values, None, x.rows.flat, len(tokens)).view(*x.values.shape[:-1], -1)
    return x.with_values(values)


def by_products(x: Ragged, sizes: Sequence[int]) -> bool:
    """Whether convolutions over so many numbers a token are matrix products."""
    return x.values.device.type == "cpu" and max(sizes) <= PRODUCT_SIZE


def _by_torch(convolutions: Sequence[Convolution], x: Ragged, before: Tensor | None) -> Ragged:
    x = x.with_values(x.filled(0.0))
    return x.with_values(torch.cat([one.by_torch(x, before) for one in convolutions], dim=-1))


def _by_products(convolutions: Sequence[Convolution], x: Ragged, tokens: Tensor, before: Tensor | None) -> Tensor:
    """(N, all filters) of `x`, whose places one after another are `tokens`."""
    left, right = max(one.left for one in convolutions), max(one.right for one in convolutions)
    parts, past = [tokens, tokens.new_zeros(1, tokens.shape[1])], 0
    if before is not None:
        parts, past = [*parts, before.flatten(0, 1).to(tokens.dtype)], before.shape[1]
    spans = [(left - one.left, left + 1 + one.right) for one in convolutions]
    weights = [weight for one in convolutions for weight in (one.convolution.weight, one.convolution.bias)]
    windows = _windows(x.rows, x.layout, left, right, past)
    values: Tensor = _Windowed.apply(torch.cat(parts), windows, spans, *weights)  # type: ignore[no-untyped-call]
    return values


def _windows(rows: Rows, layout: Layout, left: int, right: int, past: int) -> Tensor:
    """(N * V,) where the tokens `left` before to `right` behind each token lie; the same object for all layers.

    They lie among the places of the layout, one of zeros, and `past` places of each row.
    """
    key = ("windows", layout, left, right, past)
    if key not in rows.kept:
        n_places = rows.n_tokens if layout == "packed" else rows.n_rows * rows.width
        begins = rows.host_offsets[:-1] if layout == "packed" else np.arange(rows.n_rows) * rows.width
        row = np.repeat(np.arange(rows.n_rows), rows.host_lengths)[:, None]
        step = rows.host_position[:, None] + np.arange(-left, right + 1)
        seen = np.where((step >= 0) & (step < rows.host_lengths[row]), begins[row] + step, n_places)
        if past:
            seen = np.where(step < 0, n_places + 1 + (row + 1) * past + step, seen)
        rows.kept[key] = rows._send(seen.ravel())
    windows: Tensor = rows.kept[key]
    return windows


class _Windowed(torch.autograd.Function):
    """(Q, D), (N * V,) which of them windows see, spans of convolutions, weights and biases -> (N, all filters).

    Windows are made again for gradients: they are V times as large as the tokens.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: Any, tokens: Tensor, windows: Tensor, spans: list[Span], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, windows, *weights[::2])
        ctx.spans = spans
        kernels, biases = [_flat(one) for one in weights[::2]], weights[1::2]
        seen = tokens.index_select(0, windows).view(-1, _size(spans) * tokens.shape[1])
        values = tokens.new_empty(len(seen), sum(map(len, kernels)))
        outputs = torch.split(values, [len(one) for one in kernels], dim=1)
        for output, span, kernel, bias in zip(outputs, spans, kernels, biases, strict=True):
            torch.addmm(bias, _part(seen, span, tokens), kernel.t(), out=output)
        return values

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tokens, windows, *weights = ctx.saved_tensors
        kernels = [_flat(one) for one in weights]
        seen = tokens.index_select(0, windows).view(len(grads[0]), -1)
        to_seen, found = torch.zeros_like(seen), []
        parts = torch.split(grads[0], [len(one) for one in kernels], dim=1)
        for grad, span, kernel, weight in zip(parts, ctx.spans, kernels, weights, strict=True):
            _part(to_seen, span, tokens).addmm_(grad, kernel)
            to_kernel = grad.t() @ _part(seen, span, tokens)
            found += [to_kernel.view(len(kernel), -1, weight.shape[1]).transpose(1, 2), grad.sum(dim=0)]
        to_tokens = torch.zeros_like(tokens).index_add_(0, windows, to_seen.view(-1, tokens.shape[1]))
        return to_tokens, None, None, *found


def _flat(weight: Tensor) -> Tensor:
    """(filters, D, width) -> (filters, width * D)."""
    return weight.transpose(1, 2).flatten(1)


def _size(spans: Sequence[Span]) -> int:
    """V."""
    return max(end for _, end in spans)


def _part(seen: Tensor, span: Span, tokens: Tensor) -> Tensor:
    """(N, V * D) -> (N, width * D): what one convolution sees of the windows; no copy."""
    begin, end = span
    return seen[:, begin * tokens.shape[1] : end * tokens.shape[1]]
