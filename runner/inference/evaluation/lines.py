"""Log P of each line of a text, by a finished language model: lines by themselves, or one text with its context.

Shapes: B lines, N tokens of all of them, a line's end among them.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from runner.batching.plan import by_length, cut
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.data.numericalize import columns_of
from runner.embeddings.ngrams import Ngrams
from runner.inference.evaluation.tally import Sizes, Tally
from runner.inference.generation.language_model import LanguageModel
from runner.interfaces import START, Head, State
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, spans
from runner.text.arrow import split_characters, split_on_spaces
from runner.text.open_vocabulary import admit
from runner.text.vocab import PAD, UNK

TOKENS = 16_384  # of all lines together that are in the model at once
WINDOW = 2_048  # of one line or text: what is longer is read in windows, the state carried on
_CPU = torch.device("cpu")


class LineScorer:
    """Scores the lines of one text, some at a time, in order.

    Args:
        model: the run.
        carried: lines are one text: each is read in the context of all before it, also of those of earlier calls.
            Otherwise each line begins from `<eos>`, with nothing before it.
        batch_size: lines at a time, where they are not carried.
    """

    def __init__(self, model: LanguageModel, carried: bool, batch_size: int) -> None:
        self.model, self.carried, self.batch_size = model, carried, batch_size
        self.state: State = START
        modules = model.model.modules()
        self.cuts_ngrams = any(isinstance(one, Ngrams) and max(one.lengths, default=0) > 1 for one in modules)
        if carried and self.cuts_ngrams:
            raise HydromelError(f"{model.where}: embedding=ngrams knows nothing of a text's earlier windows")

    def score(self, lines: list[str]) -> list[Tally]:
        """One tally a line.

        Raises:
            HydromelError: unknown tokens where the vocabulary has no `<unk>`; `<pad>`; an encoder that carries no state
                where one is needed.
        """
        strings = pa.array(lines, pa.string())
        tokens = split_characters(strings) if self.model.text.unit == "char" else split_on_spaces(strings)
        text, sizes = self._numericalised(tokens), Sizes.of(tokens, self.model.text.unit)
        starts = text.rows.host_offsets[:-1]
        assert isinstance(text.target, Ragged)
        unknown = text.target.values.numpy() == self.model.vocab.unk
        columns = (
            np.add.reduceat(self._nats(text), starts),
            text.rows.host_lengths,
            np.add.reduceat(unknown.astype(np.int64), starts),
            sizes.words,
            sizes.characters,
        )
        return [Tally(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _numericalised(self, tokens: pa.ListArray) -> Batch:
        """Rows of `<eos>` and a line's tokens, and what follows each, a line's end at last."""
        model = self.model
        (column,) = {feature.column for feature in model.features.values()}
        table = pa.table({column: tokens})
        columns = columns_of(table, model.features, admit(model.model, model.vocabs, model.features, table))
        batch = model.task.encode(columns, table, model.vocabs)
        rows = Rows(next(iter(columns.values())).rows.host_lengths + 1, _CPU)
        assert isinstance(batch.target, Ragged)
        if model.vocab.unk is None and bool((batch.target.values < 0).any()):
            raise HydromelError(f"{model.where}: the text has unknown tokens, and the vocabulary has no {UNK}")
        if bool((batch.target.values == model.vocab.ids[PAD]).any()):
            raise HydromelError(
                f"{model.where}: the text has the token {PAD}, which models never say; write it otherwise"
            )
        features = {name: Ragged(one.values, rows, "packed") for name, one in batch.features.items()}
        return Batch(features, Ragged(batch.target.values, rows, "packed"), np.arange(rows.n_rows))

    @torch.inference_mode()
    def _nats(self, text: Batch) -> npt.NDArray[np.float64]:
        """(N,) -log P of each token."""
        found = torch.empty(text.rows.n_tokens, dtype=torch.float64, device=self.model.device)
        starts, lengths = text.rows.host_offsets[:-1], text.rows.host_lengths
        if self.carried:
            self.state = self._read(text, starts[:1], lengths.sum(keepdims=True), self.state, found)
        for rows in [] if self.carried else by_length(lengths, self.batch_size):
            longest = int(lengths[rows].max())
            for some in cut(rows, max(1, TOKENS // min(longest, WINDOW))):
                self._read(text, starts[some], lengths[some], START if longest > WINDOW else None, found)
        nats: npt.NDArray[np.float64] = found.cpu().numpy()
        return nats

    def _read(self, text: Batch, starts: IntArray, lengths: IntArray, state: State, found: Tensor) -> State:
        """Put the nats of runs of tokens in their places in `found`; the state at the end of each."""
        head, in_windows = cast(Head, self.model.model.head), state is not None
        longest = int(lengths.max())
        if longest > WINDOW and self.cuts_ngrams:
            raise HydromelError(f"{self.model.where}: embedding=ngrams reads lines of at most {WINDOW:,} tokens")
        for first in range(0, longest, WINDOW):
            rows, places = spans(starts + np.minimum(first, lengths), np.clip(lengths - first, 0, WINDOW), _CPU)
            batch = _taken(text, rows, places).to(self.model.device)
            scores, state = self.model.model(batch, state)
            if in_windows and state is None:
                encoder = type(self.model.model.encoder).__name__
                raise HydromelError(
                    f"{self.model.where}: its encoder ({encoder}) carries no state from window to window"
                )
            losses = head.losses(scores, batch)
            assert isinstance(losses, Ragged)
            found.index_copy_(0, places.to(found.device, non_blocking=True), losses.tokens().double())
        return state


def _taken(text: Batch, rows: Rows, places: Tensor) -> Batch:
    assert isinstance(text.target, Ragged)
    features = {name: one.select_by(rows, places) for name, one in text.features.items()}
    return Batch(features, text.target.select_by(rows, places), np.arange(rows.n_rows), continues=True)
