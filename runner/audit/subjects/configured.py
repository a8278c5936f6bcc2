"""A configured model under a batching strategy, over rows or over streams, as a subject of the audit.

Its examples are real rows, and rows cut from them to the lengths that the audit needs.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from runner.audit.checks.auditor import Arithmetic
from runner.audit.checks.causality import Cut
from runner.audit.checks.variations import BatchSpec
from runner.audit.tracing.alignment import Geometry
from runner.audit.tracing.observe import HUGE, RunOutput, Setting
from runner.batching.shuffled import Shuffled
from runner.batching.strategy import Batching
from runner.common.arrays import BoolArray, IntArray
from runner.common.dtypes import DTYPES
from runner.components.measures import Measures
from runner.encoders.carried_state import detach_state
from runner.interfaces import PADDED, START, BatchingStrategy, Loss, State, StreamStrategy
from runner.model import Model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_spans
from runner.ragged.shapes import places_in, tokens_in
from runner.text.vocab import Vocab
from runner.training.evaluation import evaluate

Strategy = TypeVar("Strategy", bound=BatchingStrategy)
REFERENCE = Batching(
    name="reference", batch_size=1, plan=Shuffled(batch_size=1), micro_batch=None, layout="packed", width_multiple=1
)
EQUAL = 3  # number of tokens of the rows that are cut to equal length
POISON = {"huge": HUGE, "nan": float("nan")}


@dataclass
class ConfiguredSubject(Generic[Strategy]):
    """A configured model under one batching strategy."""

    name: str  # the strategy's name
    module: Model
    examples: Batch  # the examples, packed; its `index` counts from 0
    batching: Strategy
    measures: Measures  # the metrics that are compared
    vocabs: Mapping[str, Vocab]
    bf16: bool = False  # run the model under bfloat16 autocast
    with_losses: bool = False  # the outputs include the loss of each token

    @property
    def lengths(self) -> IntArray:
        return tokens_in(self.examples.lengths)

    @property
    def is_even(self) -> BoolArray:
        return np.equal(self.lengths, places_in(self.examples.lengths))

    def cast(self, arithmetic: Arithmetic) -> Self:
        """Return a copy in another arithmetic; bf16 is autocast over float32, as in training."""
        dtype = torch.float32 if arithmetic == "bf16" else DTYPES[arithmetic]
        return replace(self, module=copy.deepcopy(self.module).to(dtype), bf16=arithmetic == "bf16")

    def tokens(self, row: int) -> Sequence[str]:
        """Return the tokens of an example, from its first feature."""
        name, feature = next(iter(self.examples.features.items()))
        start, end = self.examples.rows.host_offsets[:: self.examples.texts][row : row + 2]
        return [self.vocabs[name].tokens[int(token_id)] for token_id in feature.values[start:end]]

    def continued(self, cuts: Sequence[Cut]) -> Self:
        """Return the subject with three examples for each cut (`CausalSubject`); other tokens are those of any row."""
        rng, offsets = np.random.default_rng(0), self.examples.rows.host_offsets
        spans = [np.arange(offsets[row], offsets[row + 1]) for row, _ in cuts]
        others = [rng.integers(offsets[-1], size=len(span) - kept) for span, (_, kept) in zip(spans, cuts, strict=True)]
        chosen = [
            tokens
            for span, other, (_, kept) in zip(spans, others, cuts, strict=True)
            for tokens in (span, span[:kept], np.concatenate([span[:kept], other]))
        ]
        rows = Rows(np.array([len(tokens) for tokens in chosen]), self.examples.rows.device)
        examples = select_tokens(self.examples, rows, rows.send(np.concatenate(chosen)))
        return replace(self, examples=examples, with_losses=True)

    def _lengths_of(self, rows: Sequence[int]) -> tuple[int, ...]:
        """Return the lengths of the texts of some examples."""
        return tuple(self.examples.lengths[list(rows)].ravel().tolist())

    def _run_batch(self, batch: Batch, state: State) -> tuple[RunOutput, State]:
        """Run the model on one batch, and return its results by row and the encoder's state after it."""
        head = self.module.head
        with torch.autocast(self.examples.rows.device.type, torch.bfloat16, enabled=self.bf16):
            scores, state = self.module(batch, state)
            loss = head.loss(scores, batch)
        sizes: list[int] = batch.targets_per_row.tolist()
        predictions = torch.split(head.predict(scores, batch), sizes)
        if self.with_losses and isinstance(losses := head.losses(scores, batch), Ragged):
            scores = torch.cat([scores, losses.tokens()[:, None]], dim=1)
        return RunOutput(list(torch.split(scores, sizes)), loss, list(predictions)), state


def _summed(results: Sequence[RunOutput]) -> Loss:
    losses = [result.loss for result in results if result.loss is not None]
    return Loss(torch.stack([loss.total for loss in losses]).sum(), sum(loss.count for loss in losses))


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
        widths = tuple(self.batching.shapes(self.examples.lengths, each_row).widths.tolist())
        return type(self.batching), self.batching.layout, self.batching.micro_batch, widths

    def reference(self) -> ModelSubject:
        return replace(self, batching=REFERENCE)

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        whole, lengths = self.batching.with_micro_batch(None), self.examples.lengths
        width = int(whole.shapes(lengths, [np.array(rows, dtype=np.int64)]).widths[0])
        widen = setting.widen if self.has_padding else 1
        return Geometry(self._lengths_of(rows), width * widen, texts=self.examples.texts)

    def split(self, rows: Sequence[int]) -> list[Sequence[int]]:
        return [list(batch.index) for batch in self.update(rows)]

    def with_seeds(self) -> ModelSubject:
        """Return the same subject whose examples draw their dropout masks from their own numbers."""
        seeds = torch.arange(len(self.lengths)).to(self.examples.rows.device)
        return replace(self, examples=self.examples.with_seeds(seeds))

    def run(self, rows: Sequence[int], setting: Setting) -> RunOutput:
        """Run the rows as one update, in the strategy's micro-batches, and join their results."""
        results = []
        for batch in self.micro_batches(rows, setting):
            with self._poison(batch, setting):
                results.append(self._run_batch(batch, None)[0])
        scores = [scores for result in results for scores in result.outputs]
        predictions = [prediction for result in results for prediction in result.predictions or ()]
        return RunOutput(scores, _summed(results), predictions)

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
        return [BatchSpec(tuple(update.tolist())) for update in self.batching.updates(self.examples.lengths, seed, 0)]

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
        value, lengths = (
            POISON[setting.fill],
            torch.tensor(self._lengths_of(batch.index.tolist()), device=batch.rows.device),
        )

        def poisoned(module: nn.Module, inputs: object, output: object) -> object:
            if type(output) is tuple:  # not a PackedSequence, a subclass that holds no padding
                return (poisoned(module, inputs, output[0]), *output[1:])
            if not isinstance(output, Ragged) or output.layout == "packed" or output.rows.width != batch.rows.width:
                return output
            # ids cannot be poisoned; the fill `other` replaces them
            is_aligned = np.array_equal(output.rows.host_lengths, batch.rows.host_lengths)
            if not is_aligned or not output.values.is_floating_point():
                return output
            real = torch.arange(output.rows.width, device=lengths.device) < lengths[:, None]
            return output.with_values(output.values.masked_fill(~real[:, :, None], value))

        for module in self.module.modules():
            hooks.enter_context(module.register_forward_hook(poisoned))
        return hooks


@dataclass
class StreamSubject(ConfiguredSubject[StreamStrategy]):
    """A language model over parallel streams, read window by window with carried, detached state, as in training.

    Its examples are streams of the text, of equal length.
    """

    has_padding = False  # all windows of an update have the same length
    ignores_mask = False

    @property
    def layout_key(self) -> Hashable:
        return self.name

    def reference(self) -> StreamSubject:
        return self

    def geometry(self, rows: Sequence[int], setting: Setting) -> Geometry:
        return Geometry(self._lengths_of(rows), int(self.lengths[list(rows)].max()))

    def split(self, rows: Sequence[int]) -> list[Sequence[int]]:
        return [rows]

    def run(self, rows: Sequence[int], setting: Setting) -> RunOutput:
        """Read the streams window by window, and join each stream's scores and predictions."""
        state: State = START
        results = []
        for batch in self.update(rows):
            result, state = self._run_batch(batch, state)
            results.append(result)
            state = detach_state(state)
        scores = map(torch.cat, zip(*(result.outputs for result in results), strict=True))
        predictions = map(torch.cat, zip(*(result.predictions or () for result in results), strict=True))
        return RunOutput(list(scores), _summed(results), list(predictions))

    def update(self, rows: Sequence[int]) -> list[Batch]:
        """Return batches of one window of each stream, each the continuation of the one before, as one update."""
        # Joined into one text, the streams pass through the strategy's own code, which cuts the same streams again.
        streams = self.examples.select(np.array(rows, dtype=np.int64))
        length, window = int(streams.rows.host_lengths[0]), self.batching.window
        start = np.zeros(1, dtype=np.int64)
        strategy = self.batching.with_streams(len(rows), min(window, length))
        arranged = strategy.arrange(cut_spans(streams, start, np.array([streams.rows.n_tokens]), start))
        updates = strategy.updates(arranged.rows.host_lengths, 0, 0)
        return [batch for update in updates for batch in strategy.micro_batches(arranged, update)]

    def batches(self, seed: int) -> list[BatchSpec]:
        """Return the only batch of a strategy over streams: all of them."""
        return [BatchSpec(tuple(range(len(self.lengths))))]

    def figures(self, batches: Sequence[Sequence[int]]) -> Mapping[str, object]:
        """Return the metric over groups of streams; each group starts from a fresh state, as in `evaluate`."""
        measurement = self.measures.start(self.vocabs)
        return [evaluate(self.module, measurement, self.update(rows), self.bf16) for rows in batches][-1]


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


def sample(split: Batch, n_rows: int, longest: int, seed: int) -> Batch:
    """Choose `n_rows` examples, at least 8, from a whole packed split, and cut them to at most `longest` tokens.

    The first ones are evenly spaced by length. Then come three of equal length, one of a single token (for pairs two,
    whose other text is empty), and an empty one. For pairs, `longest` limits each text. `seed` determines the choice
    among rows of similar length. Return a packed batch whose `index` counts from 0.
    """
    lengths = split.lengths.reshape(-1, split.texts)
    total = lengths.sum(axis=1)
    rng = np.random.default_rng(seed)
    mixed = rng.permutation(len(lengths))
    order = mixed[np.argsort(total[mixed], kind="stable")]
    spread = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), max(3, n_rows - 5))).astype(int))]
    long_enough = order[(lengths[order] >= EQUAL).all(axis=1)]
    texts = split.texts
    extremes = np.concatenate([np.full((3, texts), EQUAL), np.eye(texts, dtype=np.int64), np.zeros((1, texts), int)])
    rows = np.concatenate([spread, rng.choice(long_enough if len(long_enough) else order, len(extremes))])
    wanted = np.minimum(np.concatenate([np.minimum(lengths[spread], longest), extremes]), lengths[rows])
    starts = split.rows.host_offsets[:-1].reshape(-1, texts)[rows]
    return cut_spans(split, starts.ravel(), wanted.ravel(), rows)


def cut_spans(split: Batch, starts: IntArray, lengths: IntArray, rows: IntArray) -> Batch:
    """Return a packed batch of spans, with `index` from 0; a target per row is taken from the span's row in `rows`."""
    ragged_rows, tokens = select_spans(starts, lengths, split.rows.device)
    if isinstance(split.target, Ragged):
        return select_tokens(split, ragged_rows, tokens)
    features = {name: feature.select_by(ragged_rows, tokens) for name, feature in split.features.items()}
    target = split.target.index_select(0, torch.from_numpy(np.ascontiguousarray(rows)))
    return replace(split, features=features, target=target, index=np.arange(len(rows)))


def select_tokens(split: Batch, rows: Rows, tokens: Tensor) -> Batch:
    """Return a batch of the given `rows`, made of the tokens at positions `tokens` (N,) of a packed batch."""
    assert isinstance(split.target, Ragged)
    features = {name: feature.select_by(rows, tokens) for name, feature in split.features.items()}
    return replace(split, features=features, target=split.target.select_by(rows, tokens), index=np.arange(rows.n_rows))


def streams(text: Batch, n_streams: int, length: int) -> Batch:
    """Cut the first `n_streams` streams of `length` tokens, or fewer if the text ends, from a batch of one row."""
    length = max(1, min(length, text.real_tokens // n_streams))
    row = np.zeros(n_streams, dtype=np.int64)
    return cut_spans(text, np.arange(n_streams) * length, np.full(n_streams, length), row)


def with_random_ids(batch: Batch, vocabs: Mapping[str, Vocab], seed: int) -> Batch:
    """Return the batch with random ids and the same lengths: a word order that no corpus has."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, feature: Ragged) -> Ragged:
        ids = torch.randint(1, max(2, len(vocabs[name])), feature.values.shape, generator=generator)
        return feature.with_values(ids.to(feature.values.dtype))

    return replace(batch, features={name: draw(name, feature) for name, feature in batch.features.items()})
