"""A configured model under one batching strategy, as a subject of the audit."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from runner.audit.checks.variations import BatchSpec
from runner.audit.subjects.configured import ConfiguredSubject, summed
from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import HUGE, RunOutput, Setting
from runner.batching.shuffled import Shuffled
from runner.batching.strategy import Batching
from runner.interfaces import PADDED, BatchingStrategy
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.training.loop import evaluate

REFERENCE = Batching(
    name="reference", batch_size=1, plan=Shuffled(batch_size=1), micro_batch=None, layout="packed", width_multiple=1
)
POISON = {"huge": HUGE, "nan": float("nan")}


@dataclass
class ModelSubject(ConfiguredSubject[BatchingStrategy]):
    """A model and its head over independent rows, which the strategy's own code lays out."""

    @property
    def has_padding(self) -> bool:
        return self.batching.layout in PADDED and self.batching.micro_batch != 1

    @property
    def ignores_mask(self) -> bool:
        """True if the strategy is known to be wrong, since it treats padding as text."""
        return self.batching.layout == "unmasked"

    @property
    def layout_key(self) -> Hashable:
        """A key that is equal for strategies that lay out the same examples in the same way."""
        each_row = [np.array([row]) for row in range(len(self.lengths))]
        widths = tuple(self.batching.shapes(self.lengths, each_row).widths.tolist())
        return type(self.batching), self.batching.layout, self.batching.micro_batch, widths

    def reference(self) -> ModelSubject:
        """Return the subject in the reference layout: packed, so without padding."""
        return replace(self, batching=REFERENCE)

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        lengths = tuple(int(self.lengths[row]) for row in rows)
        needed = self.batching.with_micro_batch(None).shapes(self.lengths, [np.array(rows, dtype=np.int64)]).widths
        return Geometry(lengths, int(needed[0]) * (setting.widen if self.has_padding else 1))

    def split(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Split the rows into those of each micro-batch."""
        return [list(batch.index) for batch in self.update(rows)]

    def with_seeds(self) -> ModelSubject:
        """Return the same subject whose examples draw their dropout masks from their own numbers."""
        seeds = torch.arange(len(self.lengths)).to(self.examples.rows.device)
        return replace(self, examples=self.examples.with_seeds(seeds))

    def run(self, rows: Sequence[int], setting: Setting) -> RunOutput:
        """Run the rows as one update, in the strategy's micro-batches, and join their results."""
        batches = self.micro_batches(rows, setting)
        results = [self._run_batch(batch, None, self._poison(batch, setting)) for batch in batches]
        return RunOutput(
            [scores for result in results for scores in result.scores],
            summed([result.loss for result in results]),
            [prediction for result in results for prediction in result.predictions],
        )

    def micro_batches(self, rows: Sequence[int], setting: Setting) -> Iterator[Batch]:
        """Yield the strategy's micro-batches, widened and with other ids in the padding where the setting says so."""
        for batch in self.batching.micro_batches(self.examples, np.array(rows, dtype=np.int64)):
            if setting == Setting() or not self.has_padding:
                yield batch
                continue
            wide = self.examples.select(batch.index, batch.rows.width * setting.widen)
            padded = wide.unmasked() if self.batching.layout == "unmasked" else wide.pad()
            yield padded if setting.fill == "neutral" else _with_ids_in_padding(padded, wide.rows.mask)

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """Return the micro-batches of one training update."""
        return list(self.micro_batches(rows, Setting()))

    def batches(self, seed: int) -> list[BatchSpec]:
        """Return the strategy's own updates of an epoch."""
        return [BatchSpec(tuple(int(row) for row in update)) for update in self.batching.updates(self.lengths, seed, 0)]

    def figures(self, batches: Sequence[Sequence[int]]) -> Mapping[str, object]:
        """Return the metric over batches that are laid out as in evaluation, by the training loop's own `evaluate`."""

        def evaluation_batches() -> Iterator[Batch]:
            for rows in batches:
                selected = self.examples.select(np.array(rows, dtype=np.int64))
                yield from self.batching.evaluation_batches(replace(selected, index=np.arange(len(rows))), len(rows))

        return evaluate(self.module, self.measures.start(self.vocabs), evaluation_batches(), self.bf16)

    def _poison(self, batch: Batch, setting: Setting) -> ExitStack:
        """Add hooks that write a value into the padding of every module's output; closing the stack removes them."""
        hooks = ExitStack()
        if setting.fill not in POISON or not self.has_padding:
            return hooks
        value, lengths = POISON[setting.fill], torch.from_numpy(self.lengths[batch.index]).to(batch.rows.device)

        def poisoned(module: nn.Module, inputs: object, output: object) -> object:
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
        return hooks


def _is_aligned(rows: Rows, expected: Rows) -> bool:
    return rows.width == expected.width and np.array_equal(rows.host_lengths, expected.host_lengths)


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
