"""The linear SVM, compared with a plain loop and with the same model trained by the runner, and on drifting data."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.sparse import csr_array

from runner.batching.shuffled import Shuffled
from runner.batching.strategy import Batching
from runner.common.errors import HydromelError
from runner.embeddings.ngrams import NgramEmbedding
from runner.encoders.bow import Bow
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, UNK, Vocab
from tasks.baselines.baselines import BUCKETS, bags
from tasks.baselines.linear_svm import LinearSvm, train_svm
from tasks.baselines.online_svm import OnlineSvm
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
    vocab = Vocab((PAD, UNK, *"abcdefg"), unk=1)
    ids = Ragged(torch.tensor([2, 3, 2, 4, 2, 3, 2, 3, 5]), rows_of([4, 0, 1, 4]), "packed")
    vocabs = {"words": vocab, "target": Vocab(("x", "y", "z"), None)}
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


def stream(good: str, bad: str, count: int, seed: int) -> tuple[list[list[str]], list[str]]:
    """Return texts in which two words determine the label; half of the words are noise."""
    rng = random.Random(seed)
    words = {good: ["fine", "glad"], bad: ["dull", "sad"]}
    labels = [rng.choice([good, bad]) for _ in range(count)]
    return [[rng.choice(words[label]), rng.choice("abc"), rng.choice("abc")] for label in labels], labels


@pytest.mark.parametrize("buckets", [None, 4096])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_it_goes_on_learning_and_follows_labels_that_drift(buckets: int | None, batch_size: int) -> None:
    svm = OnlineSvm(lengths=[1, 2], buckets=buckets, rate=0.5, decay=1e-4)

    def learn(good: str, bad: str, seed: int) -> None:
        texts, labels = stream(good, bad, 960, seed)
        for start in range(0, 960, batch_size):
            svm.learn(texts[start : start + batch_size], labels[start : start + batch_size])

    def right(good: str, bad: str) -> float:
        texts, labels = stream(good, bad, 200, seed=99)
        return sum(a == b for a, b in zip(svm.predict(texts), labels, strict=True)) / 200

    learn("pos", "neg", seed=1)
    assert right("pos", "neg") > 0.95
    assert right("neg", "pos") < 0.05
    learn("neg", "pos", seed=2)  # labels change places
    assert right("neg", "pos") > 0.95
    learn("pos", "bad", seed=3)  # and one takes another name
    assert right("pos", "bad") > 0.95


def test_one_at_a_time_an_example_with_its_margin_changes_nothing() -> None:
    svm = OnlineSvm(lengths=[1], buckets=None, rate=0.25, decay=0.0)
    for _ in range(20):
        svm.learn([["good", "film"]], ["pos"])
        svm.learn([["bad", "film"]], ["neg"])
    before = svm.scores([["good", "film"]])
    svm.learn([["good", "film"]], ["pos"])
    assert np.array_equal(svm.scores([["good", "film"]]), before)
    assert before[0, svm.labels["pos"]] >= 1


@pytest.mark.parametrize("buckets", [None, 64])
def test_stored_as_json_it_answers_the_same_and_goes_on(tmp_path: Path, buckets: int | None) -> None:
    texts, labels = stream("pos", "neg", 60, seed=1)
    whole = OnlineSvm(lengths=[1, 2], buckets=buckets, rate=0.5, decay=0.01)
    cut = OnlineSvm(lengths=[1, 2], buckets=buckets, rate=0.5, decay=0.01)
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        whole.learn([text], [label])
        cut.learn([text], [label])
        if number == 30:
            cut.save(tmp_path / "svm.json")
            cut = OnlineSvm.load(tmp_path / "svm.json")
    np.testing.assert_allclose(cut.scores(texts), whole.scores(texts), atol=1e-12)
    stored = json.loads((tmp_path / "svm.json").read_text(encoding="utf-8"))
    assert set(stored["labels"]) == {"pos", "neg"}
    if buckets is None:
        assert stored["weights"]["fine"][stored["labels"].index("pos")] > 0
        assert len(stored["weights"]) == len(
            {" ".join(t[i : i + n]) for t in texts[:31] for n in (1, 2) for i in range(4 - n)}
        )
    assert cut.predict([[], ["unheard"]])[0] in ("pos", "neg")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "hydromel-linear-svm-1", "labels": []}'])
def test_a_file_that_is_no_svm_is_an_error_of_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "svm.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        HydromelError, match=r"svm.json: not a linear SVM in the format hydromel-linear-svm-1 \("
    ) as error:
        OnlineSvm.load(tmp_path / "svm.json")
    assert "\n" not in str(error.value)


def test_nothing_learned_and_uneven_lists_are_errors() -> None:
    svm = OnlineSvm(lengths=[1], buckets=None, rate=0.5, decay=0.0)
    with pytest.raises(ValueError, match="the SVM has no labels yet"):
        svm.predict([["a"]])
    with pytest.raises(ValueError, match="2 texts and 1 labels"):
        svm.learn([["a"], ["b"]], ["x"])
    with pytest.raises(ValueError, match="at least 1"):
        OnlineSvm(lengths=[0], buckets=None, rate=0.5, decay=0.0)


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "baselines.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert OnlineSvm.load(tmp_path / "svm.json").labels == {"good": 0}
