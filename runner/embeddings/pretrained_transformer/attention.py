"""Attention within rows, for any model of transformers that takes its attention function from a registry.

Such a model then runs packed rows, (1, N), without leaking from row to row: the masks that transformers builds itself
for encoders ignore where rows start. Packed rows are padded for the products of queries and keys only, in blocks of
similar lengths, as in `runner.layers.attention`.

Shapes: N tokens in all, B rows, T the padded width; queries have H heads of size d, keys and values G heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runner.layers.attention import dot_attention
from runner.layers.attention_window import AttentionWindow
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged

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
    **options: object,
) -> tuple[Tensor, None]:
    """Attend within the rows of `row_ids`.

    Args:
        query: (1, H, N, d) if `row_ids` is packed, (B, H, T, d) if padded; key and value: the same with G heads.
        attention_mask: None, since no function for masks has this name.
        sliding_window: a query sees the keys that are fewer than this many tokens away.

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
    rows, shared = row_ids.rows, query.shape[1] // key.shape[1]
    window = rows.cached(("attention", causal, memory), lambda: AttentionWindow(rows, bool(causal), memory, None, 0))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    heads = torch.cat([query, *(part.repeat_interleave(shared, dim=1) for part in (key, value))], dim=1)
    tokens = heads.transpose(1, 2)  # (1, N, 3H, d) or (B, T, 3H, d)
    x = row_ids.with_values(tokens[0] if row_ids.layout == "packed" else tokens)
    dropout = _dropout_of(module)
    if x.layout == "padded" or not window.blocks:
        attended = _rectangle(x, window, scale, dropout).values
    else:
        parts = [_rectangle(x.select_by(part.rows, at), part, scale, dropout) for part, at in window.blocks]
        attended = torch.cat([part.values for part in parts]).index_select(0, window.block_inverse)
    return attended if x.layout == "padded" else attended[None], None


def _rectangle(x: Ragged, window: AttentionWindow, scale: float, dropout: Dropout) -> Ragged:
    """Attend in one padded rectangle: rows of (length, 3H, d) to rows of (length, H, d), in the same layout."""
    padded = x.pad().values.transpose(1, 2)
    queries, keys, values = padded.chunk(3, dim=1)
    attended = dot_attention(queries, keys, values, window, scale, dropout).transpose(1, 2)
    result = Ragged(attended, x.rows, "padded")
    return result.pack() if x.layout == "packed" else result


def _dropout_of(module: nn.Module) -> Dropout:
    dropout = getattr(module, "attention_weights_dropout", None)
    return dropout if isinstance(dropout, Dropout) else Dropout(0.0)
