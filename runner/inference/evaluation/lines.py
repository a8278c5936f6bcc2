"""Log P of each line of a text by a trained language model, line by line or as one text with its context.

Shapes: B lines, N tokens of all lines, including a token for the end of each line.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from runner.batching.plan import batches_by_length, cut
from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.embeddings.ngrams import NgramEmbedding
from runner.inference.evaluation.tally import Tally, line_sizes
from runner.inference.generation.language_model import LanguageModel
from runner.interfaces import START, State
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_spans
from runner.text.vocab import UNK

TOKENS = 16_384  # tokens of all lines in a batch
WINDOW = 2_048  # tokens of a line or text in a batch; longer ones are read in windows with carried state
_CPU = torch.device("cpu")


class LineScorer:
    """Scores the lines of one text in order, over any number of calls.

    Args:
        carried: read the lines as one text: each in the context of all lines before it, including those of earlier
            calls. Otherwise each line starts from `<eos>`, without context.
        batch_size: lines per batch, where they are not carried.
    """

    def __init__(self, model: LanguageModel, carried: bool, batch_size: int) -> None:
        self.model, self.carried, self.batch_size = model, carried, batch_size
        self.state: State = START
        # An n-gram at the start of a window would need tokens of the window before, which the embedding does not keep.
        ngrams = (module for module in model.model.modules() if isinstance(module, NgramEmbedding))
        self.cuts_ngrams = any(max(module.lengths, default=0) > 1 for module in ngrams)
        if carried and self.cuts_ngrams:
            raise HydromelError(
                f"{model.where}: embedding=ngrams cannot read a text in windows; use --independent to score each line "
                "by itself"
            )

    def score(self, lines: list[str]) -> list[Tally]:
        """Return a tally for each line; raise a HydromelError if the model cannot read one of them."""
        strings = pa.array(lines, pa.string())
        tokens = self.model.text.split_all(strings)
        text = self._numericalize(tokens)
        assert isinstance(text.target, Ragged)
        unknown = text.target.values.numpy() == self.model.vocab.unk
        sums = (self._token_nats(text), unknown.astype(np.int64))
        nats, unknown = (np.add.reduceat(values, text.rows.host_offsets[:-1]) for values in sums)
        columns = (nats, text.rows.host_lengths, unknown, *line_sizes(tokens, self.model.text.unit))
        return [Tally(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def _numericalize(self, tokens: pa.ListArray) -> Batch:
        """Return rows of `<eos>` and a line's tokens; the targets are the following tokens, the line's end last."""
        model = self.model
        batch, lengths = model.encode(tokens)
        rows = Rows(lengths, _CPU)
        assert isinstance(batch.target, Ragged)
        if model.vocab.unk is None and bool((batch.target.values < 0).any()):
            raise HydromelError(f"{model.where}: unknown tokens, but the vocabulary has no {UNK}; remove them")
        features = {name: Ragged(feature.values, rows, "packed") for name, feature in batch.features.items()}
        return Batch(features, Ragged(batch.target.values, rows, "packed"), np.arange(rows.n_rows))

    @torch.inference_mode()
    def _token_nats(self, text: Batch) -> FloatArray:
        """Return (N,) -log P of each token."""
        nats = torch.empty(text.rows.n_tokens, dtype=torch.float64, device=self.model.device)
        starts, lengths = text.rows.host_offsets[:-1], text.rows.host_lengths
        if self.carried:
            self.state = self._read(text, starts[:1], lengths.sum(keepdims=True), self.state, nats)
        # Lines of similar length share a batch, and the size of a batch is bounded by its tokens too.
        for rows in [] if self.carried else batches_by_length(lengths, self.batch_size):
            longest = int(lengths[rows].max())
            for batch_rows in cut(rows, max(1, TOKENS // min(longest, WINDOW))):
                self._read(text, starts[batch_rows], lengths[batch_rows], START if longest > WINDOW else None, nats)
        return nats.cpu().numpy()

    def _read(self, text: Batch, starts: IntArray, lengths: IntArray, state: State, nats: Tensor) -> State:
        """Write the nats of some spans of tokens to their positions in `nats`, and return the state after each."""
        head, in_windows = self.model.model.head, state is not None
        longest = int(lengths.max())
        if longest > WINDOW and self.cuts_ngrams:
            raise HydromelError(
                f"{self.model.where}: embedding=ngrams reads lines of at most {WINDOW:,} tokens, got {longest:,}"
            )
        for first in range(0, longest, WINDOW):
            rows, places = select_spans(starts + np.minimum(first, lengths), np.clip(lengths - first, 0, WINDOW), _CPU)
            assert isinstance(text.target, Ragged)
            features = {name: feature.select_by(rows, places) for name, feature in text.features.items()}
            window = Batch(features, text.target.select_by(rows, places), np.arange(rows.n_rows), carries_state=True)
            batch = window.to(self.model.device)
            scores, state = self.model.model(batch, state)
            if in_windows and state is None:
                encoder = type(self.model.model.encoder).__name__
                raise HydromelError(
                    f"{self.model.where}: its encoder ({encoder}) carries no state from window to window; score lines "
                    f"of at most {WINDOW:,} tokens, without context"
                )
            losses = head.losses(scores, batch)
            assert isinstance(losses, Ragged)
            nats.index_copy_(0, places.to(nats.device, non_blocking=True), losses.tokens().double())
        return state
