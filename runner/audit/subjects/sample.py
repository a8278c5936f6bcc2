"""Examples for the audit of a configured model: real rows, and rows cut from them to the lengths that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from runner.common.arrays import IntArray
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import select_spans
from runner.text.vocab import Vocab

EQUAL = 3  # number of tokens of the rows that are cut to equal length


def sample(split: Batch, n_rows: int, longest: int, seed: int) -> Batch:
    """Choose `n_rows` examples, at least 8, from a whole packed split, and cut them to at most `longest` tokens.

    They are evenly spaced by length; then come three of equal length, one of one token, and an empty one. `seed` is
    that of the choice among rows of similar length. Returns a packed batch whose `index` counts from 0.
    """
    lengths = split.rows.host_lengths
    rng = np.random.default_rng(seed)
    mixed = rng.permutation(len(lengths))
    order = mixed[np.argsort(lengths[mixed], kind="stable")]
    spread = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), max(3, n_rows - 5))).astype(int))]
    long_enough = order[lengths[order] >= EQUAL]
    rows = np.concatenate([spread, rng.choice(long_enough if len(long_enough) else order, 5)])
    wanted = np.concatenate([np.minimum(lengths[spread], longest), [EQUAL] * 3, [1, 0]])
    return cut_rows(split, rows, np.minimum(wanted, lengths[rows]))


def cut_rows(split: Batch, rows: IntArray, lengths: IntArray) -> Batch:
    """Return the first `lengths` tokens of `rows`, with their targets; packed, `index` from 0."""
    starts = split.rows.host_offsets[rows]
    ragged_rows, tokens = select_spans(starts, lengths, split.rows.device)
    features = {name: feature.select_by(ragged_rows, tokens) for name, feature in split.features.items()}
    if isinstance(split.target, Ragged):
        target: Ragged | torch.Tensor = split.target.select_by(ragged_rows, tokens)
    else:
        target = split.target.index_select(0, torch.from_numpy(np.ascontiguousarray(rows)))
    return replace(split, features=features, target=target, index=np.arange(len(rows)))


def streams(text: Batch, n_streams: int, length: int) -> Batch:
    """Cut the first `n_streams` streams of `length` tokens, or fewer if the text ends, from a batch of one row."""
    length = max(1, min(length, text.real_tokens // n_streams))
    rows, tokens = select_spans(np.arange(n_streams) * length, np.full(n_streams, length), text.rows.device)
    assert isinstance(text.target, Ragged)
    features = {name: feature.select_by(rows, tokens) for name, feature in text.features.items()}
    return Batch(features, text.target.select_by(rows, tokens), np.arange(n_streams))


def with_random_ids(batch: Batch, vocabs: Mapping[str, Vocab], seed: int) -> Batch:
    """Return the batch with random ids and the same lengths: a word order that no corpus has."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, feature: Ragged) -> Ragged:
        ids = torch.randint(1, max(2, len(vocabs[name])), feature.values.shape, generator=generator)
        return feature.with_values(ids.to(feature.values.dtype))

    return replace(batch, features={name: draw(name, feature) for name, feature in batch.features.items()})


def words(batch: Batch, vocabs: Mapping[str, Vocab], row: int) -> Sequence[str]:
    """Return the tokens of an example, from its first feature."""
    name, feature = next(iter(batch.features.items()))
    start, end = batch.rows.host_offsets[row : row + 2]
    return [vocabs[name].tokens[int(token_id)] for token_id in feature.values[start:end]]
