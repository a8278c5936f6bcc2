"""A language model over streams, as a subject of the audit: an example is a stream, read in windows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runner.audit.checks.variations import BatchSpec
from runner.audit.subjects.configured import ConfiguredSubject, summed
from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import RunOutput, Setting
from runner.encoders.carried_state import detach_state
from runner.interfaces import START, State, StreamStrategy
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import select_spans
from runner.training.loop import evaluate


@dataclass
class StreamSubject(ConfiguredSubject[StreamStrategy]):
    """A language model over parallel streams, read window by window with carried, detached state, as in training.

    Its examples are streams of the text, of equal length.
    """

    has_padding = False  # all windows of an update have the same length
    ignores_mask = False

    @property
    def layout_key(self) -> Hashable:
        """A key that is equal for strategies that lay out the same examples in the same way."""
        return self.name

    def reference(self) -> StreamSubject:
        """Return the subject in the reference layout, which has no padding."""
        return self

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        lengths = tuple(int(self.lengths[row]) for row in rows)
        return Geometry(lengths, max(lengths))

    def split(self, rows: Sequence[int]) -> list[Sequence[int]]:
        return [rows]

    def run(self, rows: Sequence[int], setting: Setting) -> RunOutput:
        """Read the streams window by window, and join each stream's scores and predictions."""
        state: State = START
        results = []
        for batch in self.update(rows):
            results.append(self._run_batch(batch, state))
            state = detach_state(results[-1].state)
        scores = [torch.cat(windows) for windows in zip(*(result.scores for result in results), strict=True)]
        predictions = [torch.cat(windows) for windows in zip(*(result.predictions for result in results), strict=True)]
        return RunOutput(scores, summed([result.loss for result in results]), predictions)

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """Return batches of one window of each stream, each the continuation of the one before, as one update."""
        # Joined into one text, the streams pass through the strategy's own code, which cuts the same streams again.
        streams = self.examples.select(np.array(rows, dtype=np.int64))
        length, window = int(streams.rows.host_lengths[0]), self.batching.window
        whole = select_spans(np.zeros(1, dtype=np.int64), np.array([streams.rows.n_tokens]), streams.rows.device)
        assert isinstance(streams.target, Ragged)
        features = {name: feature.select_by(*whole) for name, feature in streams.features.items()}
        strategy = self.batching.with_streams(len(rows), min(window, length))
        arranged = strategy.arrange(Batch(features, streams.target.select_by(*whole), np.arange(1)))
        updates = strategy.updates(arranged.rows.host_lengths, 0, 0)
        return [batch for update in updates for batch in strategy.micro_batches(arranged, update)]

    def batches(self, seed: int) -> list[BatchSpec]:
        """Return the only batch of a strategy over streams: all of them."""
        return [BatchSpec(tuple(range(len(self.lengths))))]

    def figures(self, batches: Sequence[Sequence[int]]) -> Mapping[str, object]:
        """Return the metric over groups of streams; each group starts from a fresh state, as in `evaluate`."""
        measurement = self.measures.start(self.vocabs)
        figures: Mapping[str, object] = {}
        for rows in batches:
            figures = evaluate(self.module, measurement, self.update(rows), self.bf16)
        return figures
