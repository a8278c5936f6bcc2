"""One-dimensional convolutions over the tokens of each row, with zeros beyond its edges; rows never see each other.

For small vectors on a CPU, convolutions are matrix products over the windows of real tokens, where filters of several
widths share the windows. Otherwise they are torch's convolutions.

Shapes: B rows, N tokens in all, D inputs per token, V places in the widest window, T the padded width. The `before` of
a function is (B, P, D), the last P vectors before each row, from an earlier window of its text; None stands for zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.layers.autograd import Context, apply
from runner.layers.moves import move_places, pack_tokens
from runner.ragged.ragged import Layout, Ragged
from runner.ragged.rows import Rows

MAX_PRODUCT_SIZE = 64  # largest D for which products of windows are faster on a CPU (docs/notes/performance.md)
DENSE_SHARE = 0.8  # least share of real tokens for which a padded rectangle is convolved as it is, on a CPU
Span = tuple[int, int]  # the part of the widest window that a convolution sees: first place, last place + 1


class Convolution(nn.Module):
    """A cross-correlation with one output per token: y[t] = b + sum_k W[k] x[t - left + k].

    With `causal`, an output sees its token and earlier ones; else `(width - 1) // 2` earlier ones and the rest later.
    """

    def __init__(self, input_size: int, filters: int, width: int, causal: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_size, filters, width)
        self.left = width - 1 if causal else (width - 1) // 2
        self.right = width - 1 - self.left

    def forward(self, x: Ragged, before: Tensor | None) -> Ragged:
        """Map rows of (length, D) to rows of (length, filters); P is at least the number of earlier tokens seen."""
        return convolve_parallel([self], x, before)

    def run_torch(self, x: Ragged, before: Tensor | None) -> Tensor:
        """Return the values of `forward` by torch's convolution; padding of `x` must be zeros."""
        edge = None if before is None else before[:, before.shape[1] - self.left :].to(x.values.dtype)
        if x.layout == "packed":
            return self._packed(x, edge)
        if edge is None:
            return self._convolve(F.pad(x.values, (0, 0, self.left, self.right)))
        return self._convolve(F.pad(torch.cat([edge, x.values], dim=1), (0, 0, 0, self.right)))

    def _packed(self, x: Ragged, edge: Tensor | None) -> Tensor:
        """Convolve packed rows as one long line, with `edge` (B, left, D) before the rows; return (N, filters)."""
        # Rows are separated by gaps of max(left, right) places, so that no output sees two rows: one gap is the right
        # edge of a row and the left edge of the next. A single call then convolves all rows with little padding. Zeros
        # after the last row round the line up to a length that oneDNN has a kernel for.
        gap, device = max(self.left, self.right), x.values.device
        places = torch.arange(x.rows.n_tokens, device=device) + (x.rows.row + 1) * gap
        size = round_up_size(x.rows.n_tokens + (x.rows.n_rows + 1) * gap)
        line = x.values.new_zeros(size, x.values.shape[-1]).index_copy(0, places, x.values)
        if edge is not None:
            starts = x.rows.offsets[:-1] + torch.arange(1, x.rows.n_rows + 1, device=device) * gap
            edges = starts[:, None] + torch.arange(-self.left, 0, device=device)
            line = line.index_copy(0, edges.flatten(), edge.flatten(0, 1))
        return self._convolve(line[None])[0].index_select(0, places - self.left)

    def _convolve(self, rectangle: Tensor) -> Tensor:
        """Apply torch's convolution: (B, T, D) -> (B, T - left - right, filters)."""
        scores: Tensor = self.convolution(rectangle.transpose(1, 2))
        return scores.transpose(1, 2)


def round_up_size(size: int) -> int:
    """Round `size` up, by a sixteenth at most, to one of 17 sizes from each power of two to the next.

    oneDNN compiles a kernel for every size that it has not seen lately, which takes as long as running it.
    """
    step = 1 << max(0, size.bit_length() - 5)
    return -(-size // step) * step


def convolve_parallel(convolutions: Sequence[Convolution], x: Ragged, before: Tensor | None) -> Ragged:
    """Map rows of (length, D) to rows of (length, all filters): the concatenated outputs of all convolutions."""
    if x.rows.n_tokens == 0:
        filters = sum(layer.convolution.out_channels for layer in convolutions)
        return x.with_values(x.values.new_zeros(*x.values.shape[:-1], filters))
    tokens = x.values if x.layout == "packed" else x.values.flatten(0, 1)
    if uses_products(x, [tokens.shape[1]]):
        values = _convolve_windows(convolutions, x, tokens, before)
    elif x.prefers_packed and x.rows.n_tokens < DENSE_SHARE * len(tokens):  # so much padding that packing saves time
        values = _run_torch(convolutions, Ragged(pack_tokens(x), x.rows, "packed"), before).values
    else:
        return _run_torch(convolutions, x, before)
    if x.layout == "padded":
        values = move_places(values, None, x.rows.flat, len(tokens)).view(*x.values.shape[:-1], -1)
    return x.with_values(values)


def uses_products(x: Ragged, sizes: Sequence[int]) -> bool:
    """Return whether convolutions over vectors of these `sizes` run as matrix products."""
    return x.prefers_packed and max(sizes) <= MAX_PRODUCT_SIZE


def _run_torch(convolutions: Sequence[Convolution], x: Ragged, before: Tensor | None) -> Ragged:
    """Compute `convolve_parallel` by torch's convolutions."""
    x = x.with_values(x.filled(0.0))
    return x.with_values(torch.cat([layer.run_torch(x, before) for layer in convolutions], dim=-1))


def _convolve_windows(convolutions: Sequence[Convolution], x: Ragged, tokens: Tensor, before: Tensor | None) -> Tensor:
    """Compute `convolve_parallel` by matrix products, (N, all filters); `tokens` are all places of `x` in order."""
    # The windows are gathered from one table: all places of `x`, then one place of zeros, then the places of `before`.
    # An index beyond the edge of a row points to the zeros, so the gather needs no mask and reads no padding.
    left, right = max(layer.left for layer in convolutions), max(layer.right for layer in convolutions)
    parts, past = [tokens, tokens.new_zeros(1, tokens.shape[1])], 0
    if before is not None:
        parts, past = [*parts, before.flatten(0, 1).to(tokens.dtype)], before.shape[1]
    spans = [(left - layer.left, left + 1 + layer.right) for layer in convolutions]
    weights = [weight for layer in convolutions for weight in (layer.convolution.weight, layer.convolution.bias)]
    key = ("windows", x.layout, left, right, past)  # shared by all layers with windows of these sizes
    windows = x.rows.cached(key, lambda: _window_indices(x.rows, x.layout, left, right, past))
    return apply(_WindowProducts, torch.cat(parts), windows, spans, *weights)


def _window_indices(rows: Rows, layout: Layout, left: int, right: int, past: int) -> Tensor:
    """Return the indices of the window around each token, `left` before to `right` after it, (N * V,).

    Indices count the places of the layout, then one place of zeros, then `past` places for each row.
    """
    n_places = rows.n_tokens if layout == "packed" else rows.n_rows * rows.width
    starts = rows.host_offsets[:-1] if layout == "packed" else np.arange(rows.n_rows) * rows.width
    row = np.repeat(np.arange(rows.n_rows), rows.host_lengths)[:, None]
    position = rows.host_position[:, None] + np.arange(-left, right + 1)  # in the row; below 0: before its first token
    indices = np.where((position >= 0) & (position < rows.host_lengths[row]), starts[row] + position, n_places)
    if past:
        indices = np.where(position < 0, n_places + 1 + (row + 1) * past + position, indices)
    return rows.send(indices.ravel())


class _Context(Context, Protocol):
    spans: list[Span]


class _WindowProducts(torch.autograd.Function):
    """Matrix products over windows: places (Q, D), indices (N * V,), spans, weights and biases -> (N, all filters)."""

    # All convolutions read the same (N, V * D) windows; a span of columns is the window of a narrower one, as a view.
    # The windows are V times as large as the tokens, so they are not kept for the backward pass but gathered again.

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(ctx: _Context, places: Tensor, indices: Tensor, spans: list[Span], *weights: Tensor) -> Tensor:
        ctx.save_for_backward(places, indices, *weights[::2])
        ctx.spans = spans
        kernels, biases = [_flatten_kernel(weight) for weight in weights[::2]], weights[1::2]
        widest = max(end for _, end in spans)
        windows = places.index_select(0, indices).view(-1, widest * places.shape[1])
        values = places.new_empty(len(windows), sum(map(len, kernels)))
        outputs = torch.split(values, [len(kernel) for kernel in kernels], dim=1)
        for output, span, kernel, bias in zip(outputs, spans, kernels, biases, strict=True):
            torch.addmm(bias, _columns(windows, span, places), kernel.t(), out=output)
        return values

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        places, indices, *weights = ctx.saved_tensors
        kernels = [_flatten_kernel(weight) for weight in weights]
        windows = places.index_select(0, indices).view(len(grads[0]), -1)
        window_grad, weight_grads = torch.zeros_like(windows), []
        output_grads = torch.split(grads[0], [len(kernel) for kernel in kernels], dim=1)
        for grad, span, kernel, weight in zip(output_grads, ctx.spans, kernels, weights, strict=True):
            _columns(window_grad, span, places).addmm_(grad, kernel)
            kernel_grad = grad.t() @ _columns(windows, span, places)
            weight_grads += [kernel_grad.view(len(kernel), -1, weight.shape[1]).transpose(1, 2), grad.sum(dim=0)]
        # A place is in up to V windows, so its gradients are added up. Windows that extend beyond a row add theirs to
        # the place of zeros.
        place_grad = torch.zeros_like(places).index_add_(0, indices, window_grad.view(-1, places.shape[1]))
        return place_grad, None, None, *weight_grads


def _flatten_kernel(weight: Tensor) -> Tensor:
    """Flatten a kernel to match a window: (filters, D, width) -> (filters, width * D)."""
    return weight.transpose(1, 2).flatten(1)


def _columns(windows: Tensor, span: Span, places: Tensor) -> Tensor:
    """Return the columns of one convolution's window, (N, V * D) -> (N, width * D): a view, no copy."""
    start, end = span
    return windows[:, start * places.shape[1] : end * places.shape[1]]
