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
from runner.audit.checks.variations import Company
from runner.audit.subjects.sample import words
from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import Answers, Setting
from runner.batching.stream import Stream
from runner.common.arrays import IntArray
from runner.encoders.carried_state import detached
from runner.interfaces import START, Head, Loss, State, Task
from runner.model import Model
from runner.ragged.batch import Batch
from runner.ragged.rows import spans
from runner.text.vocab import Vocab
from runner.training.loop import evaluate


@dataclass
class StreamSubject:
    """Streams of a text side by side, window after window, their state carried on and its history cut, as in training.

    Attributes:
        streams: (S rows of one length), each a stream of the text.
    """

    name: str
    module: Model
    streams: Batch
    batching: Stream
    task: Task
    vocabs: Mapping[str, Vocab]
    bf16: bool = False
    has_padding: bool = False  # windows of an update are equally long

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
        state: State = START
        scores: list[list[Tensor]] = [[] for _ in rows]
        answers: list[list[Tensor]] = [[] for _ in rows]
        totals, count = [], 0
        head = cast(Head, self.module.head)
        for batch in self._windows(rows):
            with torch.autocast(self.streams.rows.device.type, torch.bfloat16, enabled=self.bf16):
                found, state = self.module(batch, state)
                loss = head.loss(found, batch)
            state = detached(state)
            totals.append(loss.total)
            count += loss.count
            lengths = batch.rows.host_lengths.tolist()
            for gathered, flat in ((scores, found), (answers, head.predict(found, batch))):
                for row, one in zip(gathered, flat.split(lengths), strict=True):
                    row.append(one)
        loss = Loss(torch.stack(totals).sum(), count)
        return Answers([torch.cat(row) for row in scores], loss, [torch.cat(row) for row in answers])

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """All windows, as if they were one update."""
        return self._windows(rows)

    def batches(self, seed: int) -> list[Company]:
        return [Company(tuple(range(len(self.lengths))))]

    def figures(self, batches: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The metric over groups of streams, each group from its begin: by a fresh state, as `evaluate` starts."""
        metric = self.task.metric(self.vocabs)
        figures: dict[str, Any] = {}
        for rows in batches:
            figures = evaluate(self.module, metric, self._windows(rows), self.bf16)
        return figures

    def _windows(self, rows: Sequence[int]) -> list[Batch]:
        """Batches of one window of each stream; they continue one another."""
        some = self.streams.select(np.array(rows, dtype=np.int64))
        length, window = int(some.rows.host_lengths[0]), self.batching.window
        text = Batch(
            {name: one.select_by(*_as_one_row(some)) for name, one in some.features.items()},
            some.target.select_by(*_as_one_row(some)),  # type: ignore[union-attr]
            np.arange(1),
        )
        strategy = replace(self.batching, batch_size=len(rows), window=min(window, length))
        arranged = strategy.arrange(text)
        updates = strategy.updates(arranged.rows.host_lengths, 0, 0)
        return [batch for update in updates for batch in strategy.micro_batches(arranged, update)]


def _as_one_row(batch: Batch) -> tuple[Any, Tensor]:
    """The rows of a packed batch, one after another, as one row."""
    return spans(np.zeros(1, dtype=np.int64), np.array([batch.rows.n_tokens]), batch.rows.device)
