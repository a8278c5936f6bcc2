"""A language model over streams, as a subject of the audit: an example is a stream, read in windows."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from runner.audit.checks.auditor import DTYPES, Arithmetic
from runner.audit.checks.variations import BatchSpec
from runner.audit.subjects.sample import words
from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import Answers, Setting
from runner.batching.stream import Stream
from runner.common.arrays import IntArray
from runner.encoders.carried_state import detach_state
from runner.interfaces import START, Head, Loss, State, Task
from runner.model import Model
from runner.ragged.batch import Batch
from runner.ragged.rows import select_spans
from runner.text.vocab import Vocab
from runner.training.loop import evaluate


@dataclass
class StreamSubject:
    """A language model over parallel streams, read window by window with carried, detached state, as in training.

    Attributes:
        name: the strategy's name.
        module: the model.
        streams: S rows of equal length, each a stream of the text.
        batching: the strategy.
        task: the task, which creates the metric.
        vocabs: vocabularies of the features and the target.
        bf16: run the model under bfloat16 autocast.
    """

    name: str
    module: Model
    streams: Batch
    batching: Stream
    task: Task
    vocabs: Mapping[str, Vocab]
    bf16: bool = False
    has_padding: bool = False  # all windows of an update have the same length

    @property
    def lengths(self) -> IntArray:
        return self.streams.rows.host_lengths

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        lengths = tuple(int(self.lengths[row]) for row in rows)
        return Geometry(lengths, max(lengths))

    def cut(self, rows: Sequence[int]) -> list[Sequence[int]]:
        return [rows]

    def cast(self, arithmetic: Arithmetic) -> StreamSubject:
        dtype = torch.float32 if arithmetic == "bf16" else DTYPES[arithmetic]
        return replace(self, module=copy.deepcopy(self.module).to(dtype), bf16=arithmetic == "bf16")

    def tokens(self, row: int) -> Sequence[str]:
        return words(self.streams, self.vocabs, row)

    def answer(self, rows: Sequence[int], setting: Setting) -> Answers:
        """Read the streams window by window, and join each stream's scores and predictions."""
        state: State = START
        scores: list[list[Tensor]] = [[] for _ in rows]
        predictions: list[list[Tensor]] = [[] for _ in rows]
        totals, count = [], 0
        head = cast(Head, self.module.head)
        for batch in self._windows(rows):
            with torch.autocast(self.streams.rows.device.type, torch.bfloat16, enabled=self.bf16):
                flat_scores, state = self.module(batch, state)
                loss = head.loss(flat_scores, batch)
            state = detach_state(state)
            totals.append(loss.total)
            count += loss.count
            lengths = batch.rows.host_lengths.tolist()
            for streams, flat in ((scores, flat_scores), (predictions, head.predict(flat_scores, batch))):
                for stream, piece in zip(streams, flat.split(lengths), strict=True):
                    stream.append(piece)
        loss = Loss(torch.stack(totals).sum(), count)
        return Answers([torch.cat(pieces) for pieces in scores], loss, [torch.cat(pieces) for pieces in predictions])

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """Return all windows, as if they were one update."""
        return self._windows(rows)

    def batches(self, seed: int) -> list[BatchSpec]:
        return [BatchSpec(tuple(range(len(self.lengths))))]

    def figures(self, batches: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return the metric over groups of streams; each group starts from a fresh state, as in `evaluate`."""
        metric = self.task.metric(self.vocabs)
        figures: dict[str, Any] = {}
        for rows in batches:
            figures = evaluate(self.module, metric, self._windows(rows), self.bf16)
        return figures

    def _windows(self, rows: Sequence[int]) -> list[Batch]:
        """Return batches of one window of each stream, each batch the continuation of the one before."""
        # Joined into one text, the streams pass through the strategy's own code, which cuts the same streams again.
        streams = self.streams.select(np.array(rows, dtype=np.int64))
        length, window = int(streams.rows.host_lengths[0]), self.batching.window
        text = Batch(
            {name: feature.select_by(*_as_one_row(streams)) for name, feature in streams.features.items()},
            streams.target.select_by(*_as_one_row(streams)),  # type: ignore[union-attr]
            np.arange(1),
        )
        strategy = replace(self.batching, batch_size=len(rows), window=min(window, length))
        arranged = strategy.arrange(text)
        updates = strategy.updates(arranged.rows.host_lengths, 0, 0)
        return [batch for update in updates for batch in strategy.micro_batches(arranged, update)]


def _as_one_row(batch: Batch) -> tuple[Any, Tensor]:
    """Return the spans that join the rows of a packed batch into one row."""
    return select_spans(np.zeros(1, dtype=np.int64), np.array([batch.rows.n_tokens]), batch.rows.device)
