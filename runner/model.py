"""The model: features -> embedding -> encoder -> head."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from runner.components.model_parts import ModelParts
from runner.interfaces import State
from runner.layers.dropout import number_dropout_layers
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
        number_dropout_layers(self)

    def forward(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Return scores, (B, C) for rows or (N, C) for real tokens, and the encoder's state at the end of each row."""
        encoded, state = self.encoder(self.embedding(batch.features), state)
        return self.head(encoded, batch), state


def build_model(parts: ModelParts, vocabs: Mapping[str, Vocab]) -> Model:
    """Return the model of these parts and this task, on the CPU in float32."""
    embedding = parts.embedding(vocabs=vocabs)
    encoder = parts.encoder(input_size=embedding.output_size, causal=parts.task.causal)
    assert isinstance(embedding, nn.Module)
    assert isinstance(encoder, nn.Module)
    head = parts.task.head(encoder, vocabs, embedding)
    assert isinstance(head, nn.Module)
    return Model(embedding, encoder, head)


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    return next(model.parameters()).device
