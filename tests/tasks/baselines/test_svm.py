"""The linear SVM, compared with a plain loop and with the same model trained by the runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.sparse import csr_array

from runner.batching.shuffled import Shuffled
from runner.batching.strategy import Batching
from runner.embeddings.ngrams import NgramEmbedding
from runner.encoders.bow import Bow
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, UNK, Vocab
from tasks.baselines.baselines import BUCKETS, LinearSvm, bags, train_svm
from tests.helpers.composed import label_files, run
from tests.helpers.target_batches import rows_of


def slow_update(
    weights: dict[tuple[int, int], float], bias: list[float], rows: Any, right: list[int], rate: float, decay: float
) -> None:
    """Make the textbook hinge update, number by number; `rows` are lists of (feature, value)."""
    n_labels = len(bias)
    moves: list[tuple[int, int, float]] = []
    for row, gold in zip(rows, right, strict=True):
        for label in range(n_labels):
            y = 1.0 if label == gold else -1.0
            score = bias[label] + sum(value * weights.get((feature, label), 0.0) for feature, value in row)
            if y * score < 1:
                moves += [(feature, label, rate / len(rows) * value * y) for feature, value in row]
                moves.append((-1, label, rate / len(rows) * y))
    for key in weights:
        weights[key] *= 1 - rate * decay
    for label in range(n_labels):
        bias[label] *= 1 - rate * decay
    for feature, label, step in moves:
        if feature == -1:
            bias[label] += step
        else:
            weights[feature, label] = weights.get((feature, label), 0.0) + step


@pytest.mark.parametrize("decay", [0.0, 0.01, 1.9])  # the last one shrinks by 0.05: the scale is folded in on the way
def test_updates_are_the_textbooks(decay: float) -> None:
    rng = np.random.default_rng(0)
    svm, weights, bias = LinearSvm(6, 3, decay), dict[tuple[int, int], float](), [0.0] * 3
    for size in (1, 4, 2, 1, 5, 3, 1, 2, 1, 4):
        dense = rng.integers(0, 3, (size, 6)) * rng.random((size, 1))
        right = rng.integers(0, 3, size)
        listed = [[(f, float(v)) for f, v in enumerate(row) if v] for row in dense]
        slow_update(weights, bias, listed, right.tolist(), 0.5, decay)
        svm.learn(csr_array(dense), right, 0.5)
    expected = np.array([[weights.get((feature, label), 0.0) for label in range(3)] for feature in range(6)])
    np.testing.assert_allclose(svm.weights, expected, atol=1e-12)
    np.testing.assert_allclose(svm.bias, bias, atol=1e-12)
    np.testing.assert_allclose(svm.scores(csr_array(np.eye(6))), expected + np.array(bias), atol=1e-12)


def test_the_worked_case_of_the_margin() -> None:
    """Only if y * score < 1 do the weights of the present features change, by rate * y."""
    svm = LinearSvm(3, 2, 0.0)
    row = csr_array(np.array([[1.0, 1.0, 0.0]]))
    svm.learn(row, np.array([0]), 0.25)
    assert svm.weights.tolist() == [[0.25, -0.25], [0.25, -0.25], [0.0, 0.0]]
    svm.learn(row, np.array([0]), 0.25)  # the score was 0.75: missed
    assert svm.scores(row).tolist() == [[1.5, -1.5]]
    before = svm.weights
    svm.learn(row, np.array([0]), 0.25)  # 1.5: no longer
    assert np.array_equal(svm.weights, before)


def test_rows_of_ngrams_are_those_of_the_embedding() -> None:
    vocab = Vocab((*"abcdefg",), (PAD, UNK))
    ids = Ragged(torch.tensor([2, 3, 2, 4, 2, 3, 2, 3, 5]), rows_of([4, 0, 1, 4]), "packed")
    vocabs = {"words": vocab, "target": Vocab(("x", "y", "z"))}
    module = NgramEmbedding(
        vocabs=vocabs, feature="words", lengths=[1, 2], buckets=BUCKETS, size=None, dropout=0.0
    ).double()
    with torch.no_grad():
        module.table.weight[1:].normal_()
    pool = Bow(input_size=3, causal=False, pool="sqrt", hidden=[], dropout=0.0)
    expected = pool(module({"words": ids}), None)[0].values
    np.testing.assert_allclose(bags(ids, vocab.known) @ module.table.weight.detach().numpy(), expected.detach().numpy())


@pytest.mark.parametrize("batch_size", [1, 7])
def test_it_is_the_model_that_the_runner_trains(tmp_path: Path, batch_size: int) -> None:
    """The same updates in the same order give the same weights, one example at a time or in batches."""
    options = [f"batching.batch_size={batch_size}", "train.epochs=2", "schedule=constant", "dtype=float64"]
    svm_options = ["embedding.buckets=262144", "optimizer.lr=0.5", "optimizer.weight_decay=0.01", "seed=3"]
    run(tmp_path / "run", "experiment=svm", *label_files(tmp_path, rows=30), *options, *svm_options)
    stored = load_file(tmp_path / "run" / "checkpoints" / "last.safetensors")
    table = next(value for name, value in stored.items() if name.endswith("embedding.table.weight"))
    bias = next(value for name, value in stored.items() if name.endswith("head.linear.bias"))

    lines = [line.split(" ", 1) for line in (tmp_path / "train.txt").read_text(encoding="utf-8").splitlines()]
    texts, labels = [text.split() for _, text in lines], [int(label) for label, _ in lines]
    known = len(table) - BUCKETS
    words = sorted(
        {word for text in texts for word in text}, key=lambda word: (-sum(t.count(word) for t in texts), word)
    )
    place = {word: known - len(words) + n for n, word in enumerate(words)}
    ids = torch.tensor([place[word] for text in texts for word in text])
    rows = bags(Ragged(ids, rows_of([len(text) for text in texts]), "packed"), known)
    svm = LinearSvm(rows.shape[1], 2, decay=0.01)
    plan = Shuffled(batch_size=batch_size)
    batching = Batching(
        name="packed", batch_size=batch_size, plan=plan, micro_batch=None, layout="packed", width_multiple=1
    )
    for epoch in range(2):
        for chosen in batching.updates(np.array([len(text) for text in texts]), 3, epoch):
            svm.learn(rows[chosen], np.array(labels)[chosen], 0.5)
    np.testing.assert_allclose(svm.weights, table.numpy(), atol=1e-9)
    np.testing.assert_allclose(svm.bias, bias.numpy(), atol=1e-9)


def test_training_learns_what_can_be_separated() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(0, 3, 200)
    rows = csr_array((rng.random((200, 30)) < 0.1) + np.eye(3, 30)[right])
    svm = LinearSvm(30, 3, 1e-4)
    train_svm(svm, rows, right, rate=1.0, epochs=20, batch_size=8)
    assert (svm.scores(rows).argmax(axis=1) == right).mean() > 0.98
