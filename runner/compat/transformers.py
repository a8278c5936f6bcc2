"""A private API of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHECKED = "5.23.0"


def takes_attention_functions(model: PreTrainedModel) -> bool:
    """Return True if a model takes its attention function from the registry (`transformers.AttentionInterface`).

    Other models only warn when another function is set, and keep their own.
    """
    return bool(getattr(model, "_supports_attention_backend", False))
