"""The model: features -> embedding -> encoder -> head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runner.config.instantiate import build
from runner.interfaces import Head, State, Task
from runner.layers.dropout import numbered
from runner.ragged.batch import Batch
from runner.text.vocab import Vocab


class Model(nn.Module):
    """An embedding, an encoder and a head, which together compute scores for a batch.

    Attributes:
        embedding: maps the ids of each feature to one vector per token.
        encoder: maps token vectors to token vectors in context.
        head: maps token vectors to the task's scores, loss and predictions.
    """

    def __init__(self, embedding: nn.Module, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.embedding, self.encoder, self.head = embedding, encoder, head
        numbered(self)

    def forward(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Return scores, (B, C) for rows or (N, C) for real tokens, and the encoder's state at the end of each row."""
        encoded, state = self.encoder(self.embedding(batch.features), state)
        return self.head(encoded, batch), state


def build_model(config: Mapping[str, Any], task: Task, vocabs: Mapping[str, Vocab], plugins: list[str]) -> Model:
    """Return the model described by `config` (nodes `embedding` and `encoder`) and the task, on the CPU in float32."""
    embedding = build(config["embedding"], "embedding", {"vocabs": vocabs}, plugins)
    sizes = {"input_size": embedding.output_size, "causal": task.causal}
    encoder = build(config["encoder"], "encoder", sizes, plugins)
    head: Head = task.head(encoder, vocabs, embedding)
    assert isinstance(head, nn.Module)
    return Model(embedding, encoder, head)


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    return next(model.parameters()).device
