"""Attributes of transformers that are not public. Checked with transformers 5.23."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def takes_attention_functions(model: PreTrainedModel) -> bool:
    """Return True if a model takes its attention function from the registry (`transformers.AttentionInterface`).

    Others only warn when another function is set, and go on with their own.
    """
    return bool(getattr(model, "_supports_attention_backend", False))
