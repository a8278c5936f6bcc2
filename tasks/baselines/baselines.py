"""Simple baselines that train within seconds, for comparison with a network.

Shapes: B rows, N targets (one per row, or one per real token), C classes, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from runner.common.arrays import BoolArray, FloatArray, IntArray
from runner.layers.ngrams import ngram_buckets
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.tables.detail import count_pairs
from runner.text.vocab import Vocab
from tasks.baselines.kneser_ney import KneserNey, TokenRows, with_cache
from tasks.targets import label_sets, target_ids, target_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array  # takes 0.15 s to import, which other tasks' baselines do not need

# Settings of the linear SVM, as in configs/experiment/svm.yaml.
RATE, DECAY, BUCKETS, BATCH_SIZE, EPOCHS = 3.0, 1e-4, 2**18, 32, 20
SMALLEST_SCALE = 1e-6
MOST_EXAMPLES = 600_000  # limit on examples times epochs: large training sets need fewer epochs
PENALTY, MOST_STEPS = 1.0, 300  # L2 penalty of ridge regression and limit of its steps; it converges in fewer
# Limits of the SVM, which has a weight for each feature and label: 1 GiB, and about a minute of one core.
MOST_WEIGHTS, MOST_SVM_STEPS = 2**27, 2**32
MOST_SCORES = 2**24  # most scores computed at a time
# Settings of the n-gram model. The cache's are close to optimal for WikiText-2's validation set, both by lines and as
# a stream.
ORDER, CACHE_WEIGHT, CACHE_WINDOW = 5, 0.15, 1000
# Most training tokens for the n-gram model, which takes about 150 bytes per token; the network may leave little memory.
MOST_TOKENS = 10_000_000


def majority_ids(train: Batch, test: Batch, n_labels: int) -> Tensor:
    """Return the most frequent target of `train` for all of `test`: (N,). Among ties the lowest id wins."""
    targets = target_ids(train)
    return torch.bincount(targets[targets != IGNORED], minlength=n_labels).argmax().expand(len(target_ids(test)))


def most_frequent(train: Batch, test: Batch, vocab: Vocab, n_classes: int) -> Tensor:
    """Return each word's most frequent tag in the training set, for the tokens of `test`: (N,).

    Ties, including those of unseen words, go to the tag that is more frequent overall.
    """
    train_words, test_words = (_word_ids(split, vocab).values.numpy() for split in (train, test))
    targets = target_ids(train).numpy()
    train_words, tags = train_words[targets != IGNORED], targets[targets != IGNORED]
    # Only pairs of word and tag that occur are counted, since there may be many tags. Equal counts are decided by the
    # overall frequency of the tags, scaled down so far that it only breaks ties, and then by the tags' ids.
    words, word_tags, counts = count_pairs(train_words, tags, n_classes)
    overall = np.bincount(tags, minlength=n_classes)
    order = np.lexsort((-word_tags, overall[word_tags], counts, words))
    words, word_tags = words[order], word_tags[order]
    is_last = np.append(words[1:] != words[:-1], True)[: len(words)]
    best = np.full(vocab.known, overall.argmax())
    best[words[is_last]] = word_tags[is_last]
    return torch.from_numpy(best[test_words])


def frequent_labels(train: Batch, test: Batch, n_labels: int) -> Tensor:
    """Return the labels that more than half of the rows of `train` have, for all rows of `test`: (B, n_labels)."""
    counts = label_sets(train, n_labels).sum(dim=0)
    return (2 * counts > len(train.index)).expand(len(test.index), n_labels)


def mean_value(train: Batch, test: Batch) -> Tensor:
    """Return the mean target of `train` for all rows of `test`: (B,) float64."""
    assert isinstance(train.target, Tensor)
    return train.target.mean().expand(len(test.index))


def ridge(train: Batch, test: Batch, vocab: Vocab, joined: bool) -> Tensor:
    """Return the predictions (B,) float64 of ridge regression on the features of `linear_svm`.

    It minimises the squared errors of targets without their mean, plus `PENALTY` times the squared weights.
    """
    from scipy.sparse.linalg import lsmr

    assert isinstance(train.target, Tensor)
    rows, test_rows = (features_of(texts_of(split, vocab, joined), split, vocab.known) for split in (train, test))
    used = np.unique(rows.indices)
    mean = float(train.target.mean())
    weights = lsmr(rows[:, used], train.target.numpy() - mean, damp=PENALTY**0.5, maxiter=MOST_STEPS)[0]
    return torch.from_numpy(test_rows[:, used] @ weights + mean)


def linear_svm(train: Batch, test: Batch, vocab: Vocab, n_classes: int, joined: bool) -> Tensor | str:
    """Return the predictions (N,) of a linear SVM over words and hashed bigrams of words, or why it is left out.

    The words and bigrams of a pair's two texts are separate features, and those that both texts have are additional
    ones. Whether the texts are `joined` makes no difference.
    """
    return _svm(train, test, vocab, n_classes, joined, lambda scores: scores.argmax(axis=1))


def svm_sets(train: Batch, test: Batch, vocab: Vocab, n_labels: int, joined: bool) -> Tensor | str:
    """Return the sets of labels (B, n_labels) predicted by such a model, which decides on each label independently."""
    return _svm(train, test, vocab, n_labels, joined, lambda scores: scores > 0)


def _svm(
    train: Batch,
    test: Batch,
    vocab: Vocab,
    n_classes: int,
    joined: bool,
    decide: Callable[[FloatArray], IntArray | BoolArray],
) -> Tensor | str:
    """Return `decide(scores)` for the scores (B, C) of the rows of `test`, or the reason why the model is left out."""
    rows, test_rows = (features_of(texts_of(split, vocab, joined), split, vocab.known) for split in (train, test))
    used = np.unique(rows.indices)  # the weights of all other columns would stay zero
    n_weights, steps_per_epoch = len(used) * n_classes, rows.nnz * n_classes
    epochs = min(EPOCHS, max(1, MOST_EXAMPLES // max(1, rows.shape[0])), MOST_SVM_STEPS // max(1, steps_per_epoch))
    if n_weights > MOST_WEIGHTS or not epochs:
        return (
            f"{n_classes:,} labels x {len(used):,} words and pairs of words are {n_weights:,} weights, and "
            f"{steps_per_epoch:,} steps per epoch; the limits are {MOST_WEIGHTS:,} and {MOST_SVM_STEPS:,}"
        )
    svm = LinearSvm(len(used), n_classes, DECAY)
    train_svm(svm, rows[:, used], target_ids(train).numpy(), RATE, epochs, BATCH_SIZE)
    size, test_rows = max(1, MOST_SCORES // n_classes), test_rows[:, used]
    starts = range(0, max(1, test_rows.shape[0]), size)
    return torch.from_numpy(np.concatenate([decide(svm.scores(test_rows[start : start + size])) for start in starts]))


def kneser_ney(train: Batch, test: Batch, feature: str, vocab: Vocab) -> Iterator[tuple[str, Tensor | str]]:
    """Yield the nats (N,) of an n-gram model of `feature`, and of the same with a cache; or why it is left out."""
    if train.real_tokens > MOST_TOKENS:
        yield "kneser_ney", f"{train.real_tokens:,} tokens of training; at most {MOST_TOKENS:,} are counted"
        return
    train_text, test_text = (token_rows(split, feature) for split in (train, test))
    probabilities = KneserNey(train_text, uniform(vocab), ORDER).probabilities(test_text)
    yield "kneser_ney", torch.from_numpy(-np.log(probabilities))
    probabilities = with_cache(probabilities, test_text, CACHE_WEIGHT, CACHE_WINDOW)
    yield "kneser_ney_cache", torch.from_numpy(-np.log(probabilities))


def token_rows(split: Batch, feature: str) -> TokenRows:
    """Return the text of a language model's split: the first input of each row, then its targets."""
    rows = target_rows(split)
    starts = rows.host_offsets[:-1]
    inputs, targets = split.features[feature].pack().on_host(), target_ids(split).numpy()
    return TokenRows.of(np.insert(targets, starts, inputs[starts]), rows.host_lengths + 1)


def uniform(vocab: Vocab) -> FloatArray:
    """Return the uniform distribution (V,) over all ids except `<pad>`, which is never a target."""
    possible = np.ones(len(vocab))
    possible[vocab.pad] = 0.0
    return possible / np.count_nonzero(possible)


def bags(ids: Ragged, known: int) -> csr_array:
    """Return the counts (B, known + BUCKETS) of words and hashed bigrams in each row, over the root of its length.

    Columns and values are the same as with embedding=ngrams, encoder=bow and pool=sqrt.
    """
    from scipy.sparse import csr_array

    row = np.repeat(np.arange(ids.rows.n_rows), ids.rows.host_lengths)
    value = 1.0 / np.sqrt(np.maximum(ids.rows.host_lengths, 1))
    pairs = ngram_buckets(ids, 2, BUCKETS).values.numpy()
    is_pair = pairs > 0  # bucket 0: no bigram ends at the first token of a row
    columns = np.concatenate([ids.values.numpy().astype(np.int64), known - 1 + pairs[is_pair]])
    rows = np.concatenate([row, row[is_pair]])
    return csr_array((value[rows], (rows, columns)), shape=(ids.rows.n_rows, known + BUCKETS))


def features_of(texts: Ragged, split: Batch, known: int) -> csr_array:
    """Return the features (B, F) of rows of one text each (F as in `bags`), or of two (three times as many).

    Words and bigrams that both texts have get the geometric mean of their values in the two texts.
    """
    from scipy.sparse import csr_array, hstack

    if texts.rows.n_rows == len(split.index):
        return bags(texts, known)
    both = bags(texts, known)
    first, second = both[0::2], both[1::2]
    return csr_array(hstack([first, second, first.multiply(second).sqrt()], format="csr"))


def texts_of(split: Batch, vocab: Vocab, joined: bool) -> Ragged:
    """Return the word ids of each text of a split; texts that were `joined` are cut at their separator."""
    ids = _word_ids(split, vocab)
    if not joined:
        return ids
    is_text = ids.values.numpy() != vocab.eos
    ends = np.flatnonzero(~is_text)
    first = ends - ids.rows.host_offsets[:-1]
    lengths = np.stack([first, ids.rows.host_lengths - 1 - first], axis=1).ravel()
    return Ragged(ids.values[torch.from_numpy(is_text)], Rows(lengths, ids.rows.device), "packed")


def _word_ids(split: Batch, vocab: Vocab) -> Ragged:
    """Return the ids of the first feature, packed; words that were not in the training set are `<unk>`."""
    ids = next(iter(split.features.values())).pack()
    return ids.map(lambda values: values.masked_fill(values >= vocab.known, vocab.unk or 0))


class LinearSvm:
    """A linear SVM, trained by stochastic gradient descent on the hinge loss with an L2 term.

    The method is Pegasos (Shalev-Shwartz et al. 2007) except for the learning rate, which the caller chooses.

    Args:
        n_features: F.
        n_labels: C.
        decay: lambda, the weight of the L2 term, on the bias too.
    """

    def __init__(self, n_features: int, n_labels: int, decay: float) -> None:
        self.decay = decay
        self.bias = np.zeros(n_labels)
        # The weights are `_scaled * _scale`. Decay multiplies only the scalar, so the cost of an update depends on the
        # non-zero entries of its rows, not on F.
        self._scaled, self._scale = np.zeros((n_features, n_labels)), 1.0

    @property
    def weights(self) -> FloatArray:
        """The weights (F, C)."""
        return self._scaled * self._scale

    def scores(self, rows: csr_array) -> FloatArray:
        """Return the scores (B, C) of rows (B, F)."""
        scores: FloatArray = (rows @ self._scaled) * self._scale + self.bias
        return scores

    def learn(self, rows: csr_array, labels: IntArray, rate: float) -> None:
        """Make one update with rows (B, F) of labels (B,), or of several, (B, K), where -1 is none.

        Where y * score < 1, the weights of the features in the row change by rate / B * value * y, with y = 1 for the
        row's labels and -1 for the others. All other weights only decay.
        """
        signs = np.full((len(labels), len(self.bias) + 1), -1.0)
        signs[np.arange(len(labels))[:, None], labels.reshape(len(labels), -1)] = 1.0
        signs = signs[:, :-1]  # label -1 went to the last column
        inside_margin = signs * self.scores(rows) < 1.0
        shrink = 1.0 - rate * self.decay
        self.bias *= shrink
        self._scale *= shrink
        # Fold the scale into the weights before it underflows.
        if self._scale < SMALLEST_SCALE:
            self._scaled *= self._scale
            self._scale = 1.0
        steps = np.where(inside_margin, signs, 0.0) * (rate / len(labels))
        changes = rows.data[:, None] * np.repeat(steps / self._scale, np.diff(rows.indptr), axis=0)
        np.add.at(self._scaled, rows.indices, changes)  # unlike `+=`, adds up features that are in several rows
        self.bias += steps.sum(axis=0)


def train_svm(svm: LinearSvm, rows: csr_array, labels: IntArray, rate: float, epochs: int, batch_size: int) -> None:
    """Train for some epochs in a fixed random order; the learning rate decreases linearly to 0."""
    rng = np.random.default_rng(1)
    n_updates = -(-len(labels) // batch_size)
    for epoch in range(epochs):
        for update, chosen in enumerate(np.array_split(rng.permutation(len(labels)), n_updates)):
            done = (epoch * n_updates + update) / (epochs * n_updates)
            svm.learn(rows[chosen], labels[chosen], rate * (1.0 - done))
