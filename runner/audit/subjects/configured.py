"""The common part of subjects that audit a configured model: a model, its examples and a batching strategy."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from runner.audit.checks.auditor import Arithmetic
from runner.audit.subjects.sample import words
from runner.common.arrays import IntArray
from runner.common.dtypes import DTYPES
from runner.components.measures import Measures
from runner.interfaces import BatchingStrategy, Loss, State
from runner.model import Model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab

Strategy = TypeVar("Strategy", bound=BatchingStrategy)


class BatchResult(NamedTuple):
    """The results of one batch: scores and predictions of each row, its loss, and the encoder's state after it."""

    scores: list[Tensor]
    predictions: list[Tensor]
    loss: Loss
    state: State


@dataclass
class ConfiguredSubject(Generic[Strategy]):
    """A configured model under one batching strategy.

    Attributes:
        name: the strategy's name.
        module: the model.
        examples: the examples, packed; its `index` counts from 0.
        batching: the strategy.
        measures: the metrics that are compared.
        vocabs: vocabularies of the features and the target.
        bf16: run the model under bfloat16 autocast.
    """

    name: str
    module: Model
    examples: Batch
    batching: Strategy
    measures: Measures
    vocabs: Mapping[str, Vocab]
    bf16: bool = False

    @property
    def lengths(self) -> IntArray:
        return self.examples.rows.host_lengths

    def cast(self, arithmetic: Arithmetic) -> Self:
        """Return a copy in another arithmetic; bf16 is autocast over float32, as in training."""
        dtype = torch.float32 if arithmetic == "bf16" else DTYPES[arithmetic]
        return replace(self, module=copy.deepcopy(self.module).to(dtype), bf16=arithmetic == "bf16")

    def tokens(self, row: int) -> Sequence[str]:
        """Return the tokens of an example."""
        return words(self.examples, self.vocabs, row)

    def _run_batch(
        self, batch: Batch, state: State, hooks: AbstractContextManager[object] | None = None
    ) -> BatchResult:
        """Run the model on one batch, with `hooks` in place until the loss is computed."""
        head = self.module.head
        with torch.autocast(self.examples.rows.device.type, torch.bfloat16, enabled=self.bf16), hooks or nullcontext():
            scores, state = self.module(batch, state)
            loss = head.loss(scores, batch)
        sizes = _outputs_per_row(batch)
        predictions = torch.split(head.predict(scores, batch), sizes)
        return BatchResult(list(torch.split(scores, sizes)), list(predictions), loss, state)


def summed(losses: Sequence[Loss]) -> Loss:
    """Return the sum of the losses of several batches."""
    return Loss(torch.stack([loss.total for loss in losses]).sum(), sum(loss.count for loss in losses))


def _outputs_per_row(batch: Batch) -> list[int]:
    """Return the number of scores of each row: one, or one per token."""
    if isinstance(batch.target, Ragged):
        sizes: list[int] = batch.target.rows.host_lengths.tolist()
        return sizes
    return [1] * len(batch.index)
