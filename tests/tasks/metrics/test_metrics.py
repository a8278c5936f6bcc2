"""Metrics, compared with seqeval, hand counts and plain loops."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB1, IOB2, IOBES

from runner.common.errors import HydromelError
from runner.ragged.batch import Batch
from tasks.spans.table import all_tags
from tasks.targets import cross_entropy, target_ids
from tests.helpers.metrics import by_name, label_metric, matrix, perplexity_metric, span_metric
from tests.helpers.published import DATA
from tests.helpers.target_batches import ids, labelled, tagged

SEQEVAL = {"IOB1": IOB1, "IOB2": IOB2, "IOBES": IOBES}


def measure(metric: Any, scores: torch.Tensor, split: Batch, order: np.ndarray, batch_size: int) -> dict[str, Any]:
    """Return the metric after adding rows in a given order, in batches of a given size."""
    by_token = not isinstance(split.target, torch.Tensor)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        own = [np.arange(split.rows.host_offsets[row], split.rows.host_offsets[row + 1]) for row in chosen]
        places = np.concatenate(own).astype(np.int64) if by_token else chosen
        some = scores[torch.from_numpy(places)]
        part = split.select(chosen)
        metric.update(
            some.argmax(1) if metric.input_kind == "predictions" else cross_entropy(some, target_ids(part)), part
        )
    return metric.compute()


def random_tagging(n_tags: int, seed: int, n_rows: int) -> tuple[Batch, torch.Tensor]:
    """Return gold tags, and scores that are correct somewhat more often than by chance."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, n_tags, rng.integers(0, 10)).tolist() for _ in range(n_rows)]
    gold = torch.tensor([tag for row in rows for tag in row])
    scores = torch.from_numpy(rng.normal(size=(len(gold), n_tags)))
    scores[torch.arange(len(gold)), gold] += 2
    return tagged(rows), scores


def as_strings(flat: torch.Tensor, split: Batch, names: list[str]) -> list[list[str]]:
    tags = [names[item] for item in flat.tolist()]
    ends = split.rows.host_offsets
    return [tags[start:end] for start, end in pairwise(ends)]


def report(gold: list[list[str]], predicted: list[list[str]], scheme: str, mode: str) -> dict[str, Any]:
    options = {"mode": "strict", "scheme": SEQEVAL[scheme]} if mode == "strict" else {}
    return classification_report(gold, predicted, output_dict=True, zero_division=0, **options)


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOBES"])
def test_span_figures_are_those_of_seqeval(scheme: str) -> None:
    names = all_tags(["LOC", "PER", "x"], scheme)
    split, scores = random_tagging(len(names), seed=1, n_rows=2000)
    metric = span_metric(names, scheme)
    figures = measure(metric, scores, split, np.arange(2000), 64)
    gold = as_strings(split.target.values, split, names)
    predicted = as_strings(scores.argmax(1), split, names)
    headline = "strict" if scheme == "IOBES" else "default"
    assert figures["spans"] == {"scheme": scheme, "mode": headline}
    for mode in ("default", "strict"):
        expected = report(gold, predicted, scheme, mode)
        micro = expected["micro avg"]
        assert 0 < micro["f1-score"] < 1
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert figures[f"{ours}_{mode}"] == pytest.approx(100 * micro[theirs], abs=1e-12)
            if mode == headline:
                assert figures[ours] == figures[f"{ours}_{mode}"]
        if mode == headline:
            for name, item in by_name(figures["per_type"]).items():
                theirs = expected[name]
                assert item["support"] == theirs["support"]
                assert item["f1"] == pytest.approx(100 * theirs["f1-score"], abs=1e-12)
                assert item["precision"] == pytest.approx(100 * theirs["precision"], abs=1e-12)
                assert item["recall"] == pytest.approx(100 * theirs["recall"], abs=1e-12)
    assert figures["accuracy"] == pytest.approx(100 * accuracy_score(gold, predicted))


def test_default_calls_a_wrong_iobes_answer_right() -> None:
    """The reason why the headline mode of IOBES is strict."""
    names = all_tags(["PER"], "IOBES")
    metric = span_metric(names, "IOBES")
    gold = [names.index(tag) for tag in ("B-PER", "E-PER", "O")]
    metric.update(ids([names.index(tag) for tag in ("B-PER", "I-PER", "O")]), tagged([gold]))
    figures = metric.compute()
    assert (figures["f1_default"], figures["f1_strict"], figures["f1"]) == (100.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["spans", "labels"])
def test_order_and_size_of_batches_change_nothing(kind: str) -> None:
    names = all_tags(["LOC", "PER"], "IOB2")
    split, scores = random_tagging(len(names), seed=2, n_rows=300)

    def metric() -> Any:
        return span_metric(names, "IOB2") if kind == "spans" else label_metric(names)

    expected = measure(metric(), scores, split, np.arange(300), 300)
    assert expected["accuracy"] > 0
    for seed, size in ((0, 1), (1, 7), (2, 300)):
        order = np.random.default_rng(seed).permutation(300)
        assert measure(metric(), scores, split, order, size) == expected


def test_figures_of_nothing_are_zero() -> None:
    names = all_tags(["PER"], "IOB2")
    for metric in (span_metric(names, "IOB2"), label_metric(names)):
        assert metric.compute()["accuracy"] == 0.0
        metric.update(ids([]), tagged([[], []]))
        assert metric.compute()["accuracy"] == 0.0


def test_labels_by_hand() -> None:
    """Of a, 2 of 3 are found, and one b is predicted as a; c is neither gold nor predicted, so not part of the mean."""
    metric = label_metric(["a", "b", "c"])
    metric.update(ids([0, 0, 1, 0, 1]), labelled([0, 0, 0, 1, 1]))
    figures = metric.compute()
    assert figures["accuracy"] == pytest.approx(60.0)
    assert matrix(figures["confusion"], "abc") == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    a, b, c = by_name(figures["per_class"]).values()
    assert a == {
        "precision": pytest.approx(200 / 3),
        "recall": pytest.approx(200 / 3),
        "f1": pytest.approx(200 / 3),
        "support": 3,
    }
    assert b == {"precision": 50.0, "recall": 50.0, "f1": 50.0, "support": 2}
    assert c == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert figures["macro_f1"] == pytest.approx((200 / 3 + 50) / 2)


def test_labels_against_plain_loops() -> None:
    rng = np.random.default_rng(5)
    gold, predicted = rng.integers(0, 6, 500).tolist(), rng.integers(0, 7, 500).tolist()
    metric = label_metric(list("abcdefg"))
    metric.update(ids(predicted), labelled(gold))
    figures = metric.compute()
    pairs = list(zip(gold, predicted, strict=True))
    f1 = []
    for label in range(7):
        right = sum(g == p == label for g, p in pairs)
        called, there = sum(p == label for _, p in pairs), sum(g == label for g, _ in pairs)
        f1.append(0.0 if right == 0 else 2 * (right / called) * (right / there) / (right / called + right / there))
    assert figures["per_class"]["f1"].to_pylist() == pytest.approx([100 * value for value in f1])
    counts = [[pairs.count((gold, predicted)) for predicted in range(7)] for gold in range(7)]
    assert matrix(figures["confusion"], "abcdefg") == counts
    assert figures["macro_f1"] == pytest.approx(100 * sum(f1) / 7)
    assert figures["accuracy"] == pytest.approx(100 * sum(g == p for g, p in pairs) / 500)


def test_perplexity_is_weighted_by_tokens() -> None:
    rng = np.random.default_rng(6)
    rows = [rng.integers(0, 5, n).tolist() for n in (1, 9, 3, 40)]
    split, scores = tagged(rows), torch.from_numpy(rng.normal(size=(53, 5)))
    log_p = scores - scores.exp().sum(1, keepdim=True).log()
    nll = -sum(float(log_p[place, answer]) for place, answer in enumerate(split.target.values.tolist())) / 53
    for size in (1, 2, 4):
        figures = measure(perplexity_metric(per_character=True), scores, split, np.array([3, 0, 2, 1]), size)
        assert figures["nll"] == pytest.approx(nll, rel=1e-12)
        assert figures["perplexity"] == pytest.approx(math.exp(nll), rel=1e-12)
        assert figures["bits_per_character"] == pytest.approx(nll / math.log(2), rel=1e-12)
    assert "bits_per_character" not in measure(perplexity_metric(), scores, split, np.arange(4), 2)


def test_perplexity_of_half_precision_scores_is_summed_in_full() -> None:
    scores = torch.tensor([[0.0, 0.0]], dtype=torch.bfloat16).expand(1000, 2)
    metric = perplexity_metric()
    split = tagged([[0] * 1000])
    metric.update(cross_entropy(scores, target_ids(split)), split)
    assert metric.compute()["perplexity"] == pytest.approx(2.0, rel=1e-6)


def test_perplexity_beyond_a_float_is_infinite_and_of_nothing_is_an_error() -> None:
    metric = perplexity_metric()
    with pytest.raises(HydromelError, match="perplexity is undefined: this split has no rows"):
        metric.compute()
    metric.add(torch.tensor([5000.0]))
    assert metric.compute()["perplexity"] == math.inf


def test_fifty_thousand_sentences_take_no_time() -> None:
    names = all_tags(["LOC", "PER", "ORG", "MISC"], "IOB2")
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 50_000)
    gold, predicted = rng.integers(0, len(names), (2, lengths.sum()))
    metric = span_metric(names, "IOB2")
    metric._gold, metric._predicted = [torch.from_numpy(gold)], [torch.from_numpy(predicted)]
    metric._lengths = [lengths]
    began = time.process_time()
    assert metric.compute()["f1"] > 0
    assert time.process_time() - began < 1.5  # both modes; a loop over two million tags takes longer


@pytest.mark.data
def test_real_tags_and_predictions_of_wnut17() -> None:
    """Predict every token's most frequent tag in the training set."""
    folder = Path(DATA) / "tagging/wnut17"
    train = read(folder / "wnut17train.conll")
    test = read(folder / "emerging.test.annotated")
    counts: dict[str, dict[str, int]] = {}
    for row in train:
        for token, tag in row:
            counts.setdefault(token.lower(), {}).setdefault(tag, 0)
            counts[token.lower()][tag] += 1
    best = {token: max(tags, key=lambda tag: tags[tag]) for token, tags in counts.items()}
    names = all_tags(sorted({tag[2:] for row in train for _, tag in row if tag != "O"}), "IOB2")
    gold = [[tag for _, tag in row] for row in test]
    predicted = [[best.get(token.lower(), "O") for token, _ in row] for row in test]
    metric = span_metric(names, "IOB2")
    flat = [names.index(tag) for row in predicted for tag in row]
    metric.update(ids(flat), tagged([[names.index(tag) for tag in row] for row in gold]))
    figures = metric.compute()
    for mode in ("default", "strict"):
        expected = report(gold, predicted, "IOB2", mode)["micro avg"]
        assert expected["support"] == 1079
        assert expected["f1-score"] > 0.02
        assert figures[f"f1_{mode}"] == pytest.approx(100 * expected["f1-score"], abs=1e-12)


def read(path: Path) -> list[list[tuple[str, str]]]:
    blocks = path.read_text(encoding="utf-8").replace("\t\n", "\n").split("\n\n")
    lines = ([line.split("\t") for line in block.split("\n") if line.strip()] for block in blocks)
    return [[(cells[0], cells[1]) for cells in block] for block in lines if block]
