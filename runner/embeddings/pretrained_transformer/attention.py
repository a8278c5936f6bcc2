"""Attention within rows, for any model of transformers that takes its attention function from a registry.

Such a model then runs packed rows, (1, N), without leaking from row to row: the masks that transformers builds itself
for encoders ignore where rows start. Packed rows are padded for the products of queries and keys only, in blocks of
similar lengths, as in `runner.layers.attention`.

Shapes: N tokens in all, B rows, T the padded width; queries have H heads of size d, keys and values G heads.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from runner.interfaces import State
from runner.layers.attention import dot_attention
from runner.layers.attention_window import AttentionWindow
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

NAME = "hydromel_rows"  # name of `attend` in transformers' registry of attention functions


class CannotAttendInRowsError(Exception):
    """The model computes its attention in a way that `attend` does not know."""


_UNKNOWN = ("position_bias", "softcap", "s_aux", "cache")  # kinds of attention that are computed in another way


def register() -> None:
    """Register the function, and no function for masks, so that transformers builds none."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    row_ids: Ragged,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    carried: Carried | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """Attend within the rows of `row_ids`.

    Args:
        query: (1, H, N, d) if `row_ids` is packed, (B, H, T, d) if padded; key and value: the same with G heads.
        attention_mask: None, since no function for masks has this name.
        sliding_window: a query sees the keys that are fewer than this many tokens away.
        carried: the keys and values of earlier windows of the rows; None: there are none.

    Returns:
        (1, N, H, d) or (B, T, H, d).
    """
    for name in _UNKNOWN:
        if options.get(name) is not None:
            raise CannotAttendInRowsError(f"{type(module).__name__} needs {name}")
    if isinstance(seen := options.get("attention_modules"), list):
        seen.append((module, options.get("dropout", 0.0)))
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    memory = None if sliding_window is None else sliding_window - 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dropout, shared = _dropout_of(module), query.shape[1] // key.shape[1]
    if carried is not None:
        x = _rows_of(row_ids, torch.cat([query, key, value], dim=1))
        attended = carried.attend(x, query.shape[1], shared, memory, scale, dropout).values
        return attended if x.layout == "padded" else attended[None], None
    rows = row_ids.rows
    window = rows.cached(("attention", causal, memory), lambda: AttentionWindow(rows, bool(causal), memory, None, 0))
    # queries, keys and values move one by one: concatenated they would be copied once more
    rectangles = [window.rectangles(_rows_of(row_ids, part)) for part in (query, key, value)]
    results = []
    for (part, queries), (_, keys), (_, values) in zip(*rectangles, strict=True):
        q, k, v = (places.transpose(1, 2) for places in (queries, keys, values))
        k, v = (heads.repeat_interleave(shared, dim=1) for heads in (k, v))
        results.append(dot_attention(q, k, v, part, scale, dropout).transpose(1, 2))
    joined = window.from_rectangles(results, row_ids.layout)
    return joined.values if row_ids.layout == "padded" else joined.values[None], None


def _rows_of(row_ids: Ragged, heads: Tensor) -> Ragged:
    """Return queries, keys or values as rows of (length, heads, d), in the layout of `row_ids`."""
    tokens = heads.transpose(1, 2)  # (1, N, heads, d) or (B, T, heads, d)
    return row_ids.with_values(tokens[0] if row_ids.layout == "packed" else tokens)


class Carried:
    """The keys and values of all layers, for rows that are read in windows.

    One object serves one run of the model, whose layers call `attend` in their order.

    Args:
        state: the number of tokens that each row has had, (B,), and for each layer the keys and values of the last P of
            them, (B, P, 2 G d), at the right (`runner.layers.attention_window`); empty at the start of rows.
    """

    def __init__(self, state: State, n_rows: int) -> None:
        assert isinstance(state, tuple)
        n_seen, pasts = state or (np.zeros(n_rows, dtype=np.int64), [])
        assert isinstance(n_seen, np.ndarray)
        assert isinstance(pasts, list)
        self.n_seen, self._pasts = n_seen, pasts
        self._ends: list[Tensor] = []
        self._windows: dict[tuple[int | None, int], AttentionWindow] = {}

    def state(self, rows: Rows) -> State:
        """Return the state after the window of `rows`, which all layers have read."""
        return self.n_seen + rows.host_lengths, self._ends

    def attend(self, x: Ragged, heads: int, shared: int, memory: int | None, scale: float, dropout: Dropout) -> Ragged:
        """Attend to the past and to the window itself: rows of (length, H + 2G, d) to (length, H, d).

        Args:
            heads: H, number of heads of queries.
            shared: H / G, number of heads that share their keys and values.
        """
        padded = x.pad().values
        n_rows, _, _, size = padded.shape
        queries, fresh = padded[:, :, :heads], padded[:, :, heads:].flatten(2)
        layer = len(self._ends)
        past = self._pasts[layer] if self._pasts else fresh[:, :0]
        both = torch.cat([past, fresh], dim=1)
        key = memory, past.shape[1]
        if key not in self._windows:
            self._windows[key] = AttentionWindow(x.rows, True, memory, self.n_seen, past.shape[1])
        window = self._windows[key]
        self._ends.append(both.flatten(0, 1).index_select(0, window.next_keys).view(n_rows, window.next_places, -1))
        keys, values = both.view(n_rows, both.shape[1], -1, size).transpose(1, 2).chunk(2, dim=1)
        keys, values = (part.repeat_interleave(shared, dim=1) for part in (keys, values))
        attended = dot_attention(queries.transpose(1, 2), keys, values, window, scale, dropout).transpose(1, 2)
        result = Ragged(attended, x.rows, "padded")
        return result.pack() if x.layout == "packed" else result


def _dropout_of(module: nn.Module) -> Dropout:
    dropout = getattr(module, "attention_weights_dropout", None)
    return dropout if isinstance(dropout, Dropout) else Dropout(0.0)
