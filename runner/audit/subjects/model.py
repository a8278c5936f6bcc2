"""A configured model under one batching strategy, as a subject of the audit."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from runner.audit.checks.auditor import DTYPES, Arithmetic
from runner.audit.checks.variations import BatchSpec
from runner.audit.subjects.sample import words
from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import HUGE, Answers, Setting
from runner.batching.strategy import Batching
from runner.common.arrays import IntArray
from runner.interfaces import Head, Loss, Task
from runner.model import Model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.vocab import Vocab
from runner.training.loop import evaluate

POISON = {"huge": HUGE, "nan": float("nan")}


@dataclass
class ModelSubject:
    """A model and its head over rows of a sample, which the strategy's own code lays out.

    Attributes:
        name: the strategy's name.
        module: the model.
        sample: the examples, packed; its `index` counts from 0.
        batching: the strategy.
        task: the task, which creates the metric.
        vocabs: vocabularies of the features and the target.
        bf16: run the model under bfloat16 autocast.
    """

    name: str
    module: Model
    sample: Batch
    batching: Batching
    task: Task
    vocabs: Mapping[str, Vocab]
    bf16: bool = False

    @property
    def lengths(self) -> IntArray:
        return self.sample.rows.host_lengths

    @property
    def has_padding(self) -> bool:
        return self.batching.pads and self.batching.micro_batch != 1

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        lengths = tuple(int(self.lengths[row]) for row in rows)
        multiple = self.batching.width_multiple
        needed = -(-max(1, *lengths, 1) // multiple) * multiple
        return Geometry(lengths, needed * (setting.widen if self.has_padding else 1))

    def cut(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Split the rows into those of each micro-batch."""
        return [list(batch.index) for batch in self.update(rows)]

    def cast(self, arithmetic: Arithmetic) -> ModelSubject:
        """Return a copy in another arithmetic; bf16 is autocast over float32, as in training."""
        dtype = torch.float32 if arithmetic == "bf16" else DTYPES[arithmetic]
        return replace(self, module=copy.deepcopy(self.module).to(dtype), bf16=arithmetic == "bf16")

    def with_seeds(self) -> ModelSubject:
        """Return the same subject whose examples draw their dropout masks from their own numbers."""
        return replace(self, sample=self.sample.with_seeds(torch.arange(len(self.lengths)).to(self.sample.rows.device)))

    def tokens(self, row: int) -> Sequence[str]:
        return words(self.sample, self.vocabs, row)

    def answer(self, rows: Sequence[int], setting: Setting) -> Answers:
        """Run the rows as one update, in the strategy's micro-batches, and join their results."""
        outputs: list[Tensor] = []
        predictions: list[Tensor] = []
        totals, count = [], 0
        head = cast(Head, self.module.head)
        for batch in self.micro_batches(rows, setting):
            with torch.autocast(self.sample.rows.device.type, torch.bfloat16, enabled=self.bf16), ExitStack() as hooks:
                self._poison(hooks, batch, setting)
                scores, _ = self.module(batch, None)
                loss = head.loss(scores, batch)
            sizes = _outputs_per_row(batch)
            outputs += scores.split(sizes)
            predictions += torch.split(head.predict(scores, batch), sizes)
            totals.append(loss.total)
            count += loss.count
        return Answers(outputs, Loss(torch.stack(totals).sum(), count), predictions)

    def micro_batches(self, rows: Sequence[int], setting: Setting) -> Iterator[Batch]:
        """Yield the strategy's micro-batches, widened and with other ids in the padding where the setting says so."""
        for batch in self.batching.micro_batches(self.sample, np.array(rows, dtype=np.int64)):
            if setting == Setting() or not self.has_padding:
                yield batch
                continue
            wide = self.sample.select(batch.index, batch.rows.width * setting.widen)
            padded = wide.unmasked() if self.batching.layout == "unmasked" else wide.pad()
            yield padded if setting.fill == "neutral" else _with_ids_in_padding(padded, wide.rows.mask)

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """Return the micro-batches of one training update."""
        return list(self.batching.micro_batches(self.sample, np.array(rows, dtype=np.int64)))

    def batches(self, seed: int) -> list[BatchSpec]:
        """Return the strategy's own updates of an epoch."""
        return [BatchSpec(tuple(int(row) for row in update)) for update in self.batching.updates(self.lengths, seed, 0)]

    def figures(self, batches: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return the metric over batches that are laid out as in evaluation, by the training loop's own `evaluate`."""

        def evaluation_batches() -> Iterator[Batch]:
            for rows in batches:
                selected = self.sample.select(np.array(rows, dtype=np.int64))
                yield from self.batching.evaluation(replace(selected, index=np.arange(len(rows))), len(rows))

        return evaluate(self.module, self.task.metric(self.vocabs), evaluation_batches(), self.bf16)

    def _poison(self, hooks: ExitStack, batch: Batch, setting: Setting) -> None:
        """Add hooks that write a value into the padding of every module's output."""
        if setting.fill not in POISON or not self.has_padding:
            return
        value, lengths = POISON[setting.fill], torch.from_numpy(self.lengths[batch.index]).to(batch.rows.device)

        def poisoned(module: Any, inputs: Any, output: Any) -> Any:
            if type(output) is tuple:  # not a PackedSequence, a subclass that holds no padding
                return (poisoned(module, inputs, output[0]), *output[1:])
            if not isinstance(output, Ragged) or output.layout == "packed" or not _is_aligned(output.rows, batch.rows):
                return output
            if not output.values.is_floating_point():  # ids cannot be poisoned; the fill `other` replaces them
                return output
            real = torch.arange(output.rows.width, device=lengths.device) < lengths[:, None]
            return output.with_values(output.values.masked_fill(~real[:, :, None], value))

        for module in self.module.modules():
            hooks.callback(module.register_forward_hook(poisoned).remove)


def _is_aligned(rows: Rows, expected: Rows) -> bool:
    return rows.width == expected.width and np.array_equal(rows.host_lengths, expected.host_lengths)


def _outputs_per_row(batch: Batch) -> list[int]:
    """Return the number of scores of each row: one, or one per token."""
    if isinstance(batch.target, Ragged):
        sizes: list[int] = batch.target.rows.host_lengths.tolist()
        return sizes
    return [1] * len(batch.index)


def _with_ids_in_padding(batch: Batch, mask: Tensor) -> Batch:
    """Return the batch with random ids of its own tokens at padded positions."""
    generator = torch.Generator().manual_seed(mask.numel())

    def fill(feature: Ragged) -> Ragged:
        pool = feature.values[mask]
        if not len(pool):
            return feature
        drawn = pool[torch.randint(len(pool), mask.shape, generator=generator).to(pool.device)]
        return replace(feature, values=torch.where(mask, feature.values, drawn))

    return replace(batch, features={name: fill(feature) for name, feature in batch.features.items()})
