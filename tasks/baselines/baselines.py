"""The simplest models, learned in seconds at most: what a network must beat.

Shapes: N answers (rows, or real tokens), C possible answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from runner.common.arrays import FloatArray
from runner.interfaces import Metric
from runner.layers.ngrams import ngram_buckets
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, Vocab
from tasks.baselines.kneser_ney import KneserNey, TokenRows, with_cache
from tasks.baselines.linear_svm import LinearSvm, train_svm
from tasks.heads.outputs import BACK_OFF
from tasks.targets import answer_rows, answers

# of the linear SVM, as in configs/experiment/svm.yaml
RATE, DECAY, BUCKETS, BATCH_SIZE, EPOCHS = 3.0, 1e-4, 2**18, 32, 20
MOST_EXAMPLES = 600_000  # of all epochs: large sets need fewer
# of the n-grams; such a cache is near the best for WikiText-2's valid split, by lines and as a stream
ORDER, CACHE_WEIGHT, CACHE_WINDOW = 5, 0.15, 1000
MOST_TOKENS = 10_000_000  # of train; n-grams take about 150 bytes a token, which a network may not have left free


def figures(metric: Metric, test: Batch, answer: Callable[[], Tensor]) -> dict[str, float]:
    """The metric's figures on `test`, without its tables, and the `seconds` that learning and answering took."""
    begin = time.perf_counter()
    said = answer()
    seconds = time.perf_counter() - begin
    metric.update(said, test)
    found: dict[str, Any] = metric.compute()
    return {name: value for name, value in found.items() if isinstance(value, float)} | {"seconds": seconds}


def most_frequent(train: Batch, test: Batch, vocab: Vocab, n_answers: int) -> Tensor:
    """(N,) each word's most frequent tag in train; where that says nothing, the one that is more frequent overall."""
    words, right = (_word_ids(split, vocab).values.long() for split in (train, test)), answers(train)
    known, asked = words
    cells = torch.bincount(known * n_answers + right, minlength=vocab.known * n_answers).double()
    overall = torch.bincount(right, minlength=n_answers).double() / max(1, len(right))
    return (cells.view(-1, n_answers) + BACK_OFF * overall).argmax(dim=1).index_select(0, asked)


def linear_svm(train: Batch, test: Batch, vocab: Vocab, n_answers: int) -> Tensor:
    """(N,) the answers of a linear SVM over words and hashed pairs of words."""
    rows, asked = (bags(_word_ids(split, vocab), vocab.known) for split in (train, test))
    used = np.unique(rows.indices)  # the other columns would keep weights of zero
    svm = LinearSvm(len(used), n_answers, DECAY)
    epochs = min(EPOCHS, max(1, MOST_EXAMPLES // max(1, rows.shape[0])))
    train_svm(svm, rows[:, used], answers(train).numpy(), RATE, epochs, BATCH_SIZE)
    return torch.from_numpy(svm.scores(asked[:, used]).argmax(axis=1))


def kneser_ney(
    train: Batch, test: Batch, feature: str, vocab: Vocab, metric: Callable[[], Metric]
) -> dict[str, dict[str, float]]:
    """Figures of an n-gram model of `feature`, and of the same with a cache; none where train exceeds `MOST_TOKENS`."""
    if train.real_tokens > MOST_TOKENS:
        return {}
    begin = time.perf_counter()
    known, asked = (token_rows(split, feature) for split in (train, test))
    probabilities = KneserNey(known, uniform(vocab), ORDER).probabilities(asked)
    seconds = time.perf_counter() - begin
    found = {
        "kneser_ney": figures(metric(), test, lambda: _nats(probabilities)),
        "kneser_ney_cache": figures(
            metric(), test, lambda: _nats(with_cache(probabilities, asked, CACHE_WEIGHT, CACHE_WINDOW))
        ),
    }
    for each in found.values():
        each["seconds"] += seconds  # of learning, which they share
    return found


def token_rows(split: Batch, feature: str) -> TokenRows:
    """The text of a language model's split: each row's first input, then its answers."""
    rows = answer_rows(split)
    begins = rows.host_offsets[:-1]
    inputs, right = split.features[feature].pack().on_host(), answers(split).numpy()
    return TokenRows.of(np.insert(right, begins, inputs[begins]), rows.host_lengths + 1)


def uniform(vocab: Vocab) -> FloatArray:
    """(V,) all strings alike, but for `<pad>`, which is no answer."""
    possible = np.ones(len(vocab))
    possible[vocab.ids[PAD]] = 0.0
    return possible / np.count_nonzero(possible)


def bags(ids: Ragged, known: int) -> csr_array:
    """(B, known + BUCKETS) how often each word and hashed pair of words stands in a row, over the root of its length.

    These are the columns and values of embedding=ngrams under encoder=bow with pool=sqrt.
    """
    row = np.repeat(np.arange(ids.rows.n_rows), ids.rows.host_lengths)
    value = 1.0 / np.sqrt(np.maximum(ids.rows.host_lengths, 1))
    pairs = ngram_buckets(ids, 2, BUCKETS).values.numpy()
    there = pairs > 0
    columns = np.concatenate([ids.values.numpy().astype(np.int64), known - 1 + pairs[there]])
    rows = np.concatenate([row, row[there]])
    return csr_array((value[rows], (rows, columns)), shape=(ids.rows.n_rows, known + BUCKETS))


def _word_ids(split: Batch, vocab: Vocab) -> Ragged:
    """The first feature's, packed; what train does not know is `<unk>`."""
    ids = next(iter(split.features.values())).pack()
    return ids.map(lambda values: values.masked_fill(values >= vocab.known, vocab.unk or 0))


def _nats(probabilities: FloatArray) -> Tensor:
    return torch.from_numpy(-np.log(probabilities))
