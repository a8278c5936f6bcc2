"""N-grams that end at a token, compared with a loop over strings of ids, in both layouts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.embeddings.ngrams import NgramEmbedding
from runner.layers.ngrams import BASE, PRIME, SCATTER, ngram_buckets
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, UNK, Vocab
from tests.helpers.contract import NoWaiting, rows_of

VOCABS = {"words": Vocab((*"abcdef", "only in test"), (PAD, UNK), extra=1), "target": Vocab(("x", "y"))}
LENGTHS = (4, 0, 1, 6, 2)
IDS = [2, 3, 4, 3, 5, 1, 7, 2, 3, 4, 2, 8, 2]


def ids(layout: str, values: Any = IDS) -> Ragged:
    packed = Ragged(torch.tensor(values, dtype=torch.int32), rows_of(LENGTHS), "packed")
    wide = Ragged(packed.values, rows_of(LENGTHS, widen=3), "packed")
    return packed if layout == "packed" else wide.pad(fill=7)


def ngrams(**changed: Any) -> NgramEmbedding:
    torch.manual_seed(0)
    options: dict[str, Any] = {"feature": "words", "lengths": [1, 2, 3], "buckets": 50, "size": 3, "dropout": 0.0}
    return NgramEmbedding(vocabs=VOCABS, **options | changed).double()


def slow_bucket(gram: list[int], buckets: int) -> int:
    hashed = len(gram)
    for item in gram:
        hashed = (hashed * BASE + item) % PRIME
    hashed = (hashed ^ hashed // 2**15) * SCATTER % PRIME
    return (hashed ^ hashed // 2**12) % buckets + 1


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_ngrams_do_not_cross_rows(layout: str, length: int) -> None:
    expected = []
    for row in np.split(IDS, np.cumsum(LENGTHS)[:-1]):
        for end in range(1, len(row) + 1):
            gram = row[end - length : end].tolist() if end >= length else None
            expected.append(0 if gram is None else slow_bucket(gram, 50))
    actual = ngram_buckets(ids(layout), length, 50)
    assert actual.tokens().tolist() == expected
    assert actual.values.sum() == sum(expected)  # padding has none


def test_buckets_are_filled_evenly_and_order_counts() -> None:
    pairs = torch.unique(torch.from_numpy(np.random.default_rng(0).zipf(1.2, (200_000, 2)) % 20_000), dim=0)
    rows = rows_of([2] * len(pairs))
    actual = ngram_buckets(Ragged(pairs.flatten(), rows, "packed"), 2, 2**16).values.view(-1, 2)[:, 1]
    distinct = len(Counter(actual.tolist()))
    assert distinct >= 0.99 * 2**16 * (1 - np.exp(-len(pairs) / 2**16))  # as of random ones
    swapped = ngram_buckets(Ragged(pairs.flip(1).flatten(), rows, "packed"), 2, 2**16).values.view(-1, 2)[:, 1]
    assert ((actual == swapped) == (pairs[:, 0] == pairs[:, 1])).double().mean() > 0.999


def slow_sum(module: NgramEmbedding, row: list[int]) -> Tensor:
    """Compute the vectors (length, D) by a loop over n-grams."""
    row = [1 if item >= VOCABS["words"].known else item for item in row]
    total = torch.zeros(len(row), module.output_size, dtype=torch.float64)
    for end in range(1, len(row) + 1):
        for length in module.lengths:
            if length == 1:
                total[end - 1] += module.table.weight[row[end - 1]]
            elif end >= length:
                bucket = slow_bucket(row[end - length : end], module.buckets)
                total[end - 1] += module.table.weight[module.known - 1 + bucket]
    return total


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("lengths", [[1], [2], [1, 2, 3], [1, 3]])
def test_vectors_of_all_ngrams_that_end_at_a_token_are_summed(layout: str, lengths: list[int]) -> None:
    module = ngrams(lengths=lengths)
    with NoWaiting():
        actual = module({"words": ids(layout)})
    expected = [slow_sum(module, row.tolist()) for row in np.split(IDS, np.cumsum(LENGTHS)[:-1])]
    torch.testing.assert_close(actual.tokens(), torch.cat(expected))
    if layout == "padded" and 1 not in lengths:
        assert not actual.values[~actual.rows.mask].any()


def test_a_linear_model_has_one_element_per_label_initially_zero() -> None:
    module = ngrams(size=None)
    assert module.output_size == 2
    assert not module.table.weight.any()
    assert module.table.weight.shape == (VOCABS["words"].known + 50, 2)


def test_no_ngrams_are_zeros_and_a_length_counts_once() -> None:
    assert not ngrams(lengths=[])({"words": ids("packed")}).values.any()
    with pytest.raises(ValueError, match=r"lengths=\[1, 1\]: give each length only once"):
        ngrams(lengths=[1, 1])
