"""Perplexity by position and by frequency, compared with loops; every token is in exactly one bin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.metrics.tables import by_frequency, by_position


def test_the_bins_of_a_worked_case() -> None:
    """Lines of 1, 5 and 3 tokens; the k-th token costs k nats."""
    nats = np.array([1.0, 1, 2, 3, 4, 5, 1, 2, 3])
    begins = np.array([True, True, False, False, False, False, True, False, False])
    expected = [(1, 1, 3, 1.0), (2, 2, 2, 2.0), (3, 4, 3, 10 / 3), (5, 8, 1, 5.0)]
    actual = by_position(nats, begins)["bins"]
    assert [(item["from"], item["to"], item["tokens"], item["nll"]) for item in actual] == expected
    assert [item["perplexity"] for item in actual] == [math.exp(item[-1]) for item in expected]


def test_frequencies_of_a_worked_case() -> None:
    counts = np.array([0, 500, 30, 9, 10, 99, 100, 1000])
    nats = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    actual = by_frequency(nats, np.array([0, 1, 2, 3, 4, 5, 6, 7]), counts, {"<unk>": 1, "<eos>": 2})
    bins = {(item["from"], item["to"]): (item["tokens"], item["nll"]) for item in actual["bins"]}
    assert bins == {(0, 0): (1, 1.0), (1, 9): (1, 4.0), (10, 99): (2, 5.5), (100, 999): (1, 7.0), (1000, 9999): (1, 8)}
    assert actual["apart"]["<unk>"] == {"tokens": 1, "nll": 2.0, "perplexity": math.exp(2)}
    assert set(actual["apart"]) == {"<unk>", "<eos>"}


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_every_token_is_in_one_bin(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_tokens = sum(lengths)
    begins = np.zeros(n_tokens, dtype=np.bool_)
    begins[np.cumsum([0, *lengths[:-1]])] = True
    nats = rng.random(n_tokens)
    answers, counts = rng.integers(0, 20, n_tokens), (10.0 ** rng.uniform(-1, 6, 20)).astype(np.int64)
    places = by_position(nats, begins)["bins"]
    positions = np.concatenate([np.arange(1, length + 1) for length in lengths])
    for item in places:
        inside = (positions >= item["from"]) & (positions <= item["to"])
        assert item["tokens"] == inside.sum()
        assert item["nll"] == pytest.approx(nats[inside].mean(), rel=1e-12)
    actual = by_frequency(nats, answers, counts, {"<unk>": 1})
    for item in actual["bins"]:
        inside = (counts[answers] >= item["from"]) & (counts[answers] <= item["to"]) & (answers != 1)
        assert item["tokens"] == inside.sum()
        assert item["nll"] == pytest.approx(nats[inside].mean(), rel=1e-12)
    for rows in (places, [*actual["bins"], *actual["apart"].values()]):
        assert sum(row["tokens"] for row in rows) == n_tokens
        assert total(rows) == pytest.approx(nats.sum(), rel=1e-12)


def total(rows: list[dict[str, Any]]) -> float:
    return math.fsum(row["nll"] * row["tokens"] for row in rows)
