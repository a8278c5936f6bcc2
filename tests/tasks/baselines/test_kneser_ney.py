"""Kneser-Ney smoothing and the cache: probabilities sum to one and equal those of dictionaries and loops."""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.common.arrays import FloatArray
from tasks.baselines.kneser_ney import FEW_COUNTS, KneserNey, TokenRows, discounts, with_cache

V = 6  # ids; 0 is never predicted
BASE = np.array([0.0, *[1 / (V - 1)] * (V - 1)])
Lists = list[list[int]]
ROW = st.lists(st.integers(1, V - 1), min_size=1, max_size=9)


def rows(lists: Lists) -> TokenRows:
    lengths = np.array([len(item) for item in lists], dtype=np.int64)
    return TokenRows.of(np.array([token for item in lists for token in item], dtype=np.int64), lengths)


def corpus(n_rows: int, seed: int, n_ids: int = V) -> Lists:
    """Return rows with a skewed distribution of tokens, so that counts of 1 to 4 occur."""
    rng = np.random.default_rng(seed)
    return [(1 + rng.zipf(1.3, rng.integers(1, 12)) % (n_ids - 1)).tolist() for _ in range(n_rows)]


class Slow:
    """Compute the model by its definition: a dictionary of left neighbours for each n-gram, and a recursion."""

    def __init__(self, lists: Lists, order: int, base: FloatArray = BASE) -> None:
        self.base = base
        occurrences: dict[tuple[int, ...], int] = Counter()
        left: dict[tuple[int, ...], set[object]] = defaultdict(set)
        for row, item in enumerate(lists):
            for end in range(1, len(item)):
                for n in range(1, min(order, end + 1) + 1):
                    gram = tuple(item[end - n + 1 : end + 1])
                    occurrences[gram] += 1
                    # a row's begin is a neighbour like no other
                    left[gram].add(item[end - n] if end >= n else f"begin of row {row}")
        self.order = order
        self.counts = {g: occurrences[g] if len(g) == order else len(left[g]) for g in occurrences}
        self.followers: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for gram, count in self.counts.items():
            self.followers[gram[:-1]].append(count)
        sizes = {n: [c for g, c in self.counts.items() if len(g) == n] for n in range(1, order + 1)}
        self.discounts = {n: self.estimate(sizes[n]) for n in sizes}

    @staticmethod
    def estimate(counts: list[int]) -> list[float]:
        n1, n2, n3, n4 = (counts.count(k) for k in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return [0.5, 1.0, 1.5]
        y = n1 / (n1 + 2 * n2)
        results = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        return results if min(results) > 0 else [0.5, 1.0, 1.5]

    def probability(self, token: int, context: tuple[int, ...]) -> float:
        shorter = self.probability(token, context[1:]) if context else float(self.base[token])
        followers = self.followers[context]
        if not followers:
            return shorter
        taken = self.discounts[len(context) + 1]
        count = self.counts.get((*context, token), 0)
        kept = count - taken[min(count, 3) - 1] if count else 0.0
        return (kept + sum(taken[min(c, 3) - 1] for c in followers) * shorter) / sum(followers)

    def probabilities(self, lists: Lists) -> list[float]:
        longest = self.order - 1
        return [
            self.probability(item[end], tuple(item[max(0, end - longest) : end]))
            for item in lists
            for end in range(1, len(item))
        ]


@settings(max_examples=60)
@given(st.lists(ROW, max_size=12), st.lists(ROW, max_size=4), st.integers(1, 5))
def test_it_says_what_dictionaries_say(train: Lists, test: Lists, order: int) -> None:
    got = KneserNey(rows(train), BASE, order).probabilities(rows(train + test))
    np.testing.assert_allclose(got, Slow(train, order).probabilities(train + test), rtol=1e-12)


@pytest.mark.parametrize("unit", ["line", "stream"])
def test_it_says_so_where_discounts_are_estimated(unit: str) -> None:
    train, test = corpus(300, seed=1, n_ids=40), corpus(40, seed=2, n_ids=60)
    if unit == "stream":
        train, test = ([[token for item in lists for token in item]] for lists in (train, test))
    base = np.array([0.0, *[1 / 59] * 59])
    slow = Slow(train, 4, base)
    assert all(slow.discounts[n] != list(FEW_COUNTS) for n in (2, 3, 4))
    got = KneserNey(rows(train), base, 4).probabilities(rows(test))
    np.testing.assert_allclose(got, slow.probabilities(test), rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 5])
@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_probabilities_of_all_ids_sum_to_one(order: int, weight: float) -> None:
    n_ids = 50
    base = np.array([0.0, *[1 / (n_ids - 1)] * (n_ids - 1)])
    train = corpus(300, seed=3, n_ids=n_ids // 2)  # half of the ids are never seen
    model = KneserNey(rows(train), base, order)
    seen = [item[:end] for item in train[:60] for end in range(1, len(item))]
    unseen = [[49], [1, 49], [49, 48, 47, 46, 45], [1, 2, 49, 1, 2], [49, 1, 2, 1, 1]]
    for context in seen + unseen:
        asked = rows([[*context, answer] for answer in range(n_ids)])
        actual = model.probabilities(asked)
        actual = with_cache(actual, asked, weight, 3) if weight else actual
        last = actual.reshape(n_ids, -1)[:, -1]
        assert abs(last.sum() - 1) < 1e-9
        assert last[0] == 0
        assert (last[1:] > 0).all()


def test_a_small_case_by_hand() -> None:
    """Rows 1 2 3, 1 2 2: the bigrams are 12 (twice), 23 and 22. 2 follows 1 and 2, 3 follows 2: counts 2 and 1."""
    half, fifth = Fraction(1, 2), Fraction(1, 5)
    unigram_2 = (2 - 1 + (1 + half) * fifth) / 3  # of counts of 1 and 2, 0.5 and 1 are taken
    unigram_3 = (1 - half + (1 + half) * fifth) / 3
    expected = [
        (2 - 1 + unigram_2) / 2,  # 2 after 1, where one count of 2 gives 1 away
        (1 - half + unigram_3) / 2,  # 3 after 2, where two counts of 1 give 0.5 each
        (2 - 1 + unigram_2) / 2,
        (1 - half + unigram_2) / 2,
    ]
    text = rows([[1, 2, 3], [1, 2, 2]])
    np.testing.assert_allclose(KneserNey(text, BASE, 2).probabilities(text), [float(item) for item in expected])


def test_rows_know_nothing_of_one_another() -> None:
    train, test = corpus(50, seed=4), corpus(8, seed=5)
    model = KneserNey(rows(train), BASE, 4)
    item = [model.probabilities(rows([item])) for item in test]
    np.testing.assert_array_equal(model.probabilities(rows(test)), np.concatenate(item))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([], FEW_COUNTS),
        ([1, 2, 3], FEW_COUNTS),  # no 4
        ([2, 3, 4, 7], FEW_COUNTS),  # no 1
        ([1, 2, 3, 3, 3, 3, 4], FEW_COUNTS),  # 2 - 3 y * 4 is below 0
        # n1..n4 = 8, 4, 2, 1: y = 0.5
        ([1] * 8 + [2] * 4 + [3] * 2 + [4] + [99] * 5, (0.5, 1.25, 2.0)),
    ],
)
def test_discounts(counts: list[int], expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(discounts(np.array(counts, dtype=np.int64)), [0.0, *expected])


@pytest.mark.parametrize("train", [[], [[1]], [[1], [2]], [[1, 2]]])
def test_texts_that_say_next_to_nothing(train: Lists) -> None:
    """Without targets, or with rows shorter than the order, results are finite; unseen tokens are equally likely."""
    asked = rows([[1, 2, 3, 4, 5], [3, 5]])
    probabilities = KneserNey(rows(train), BASE, 5).probabilities(asked)
    if train != [[1, 2]]:
        np.testing.assert_allclose(probabilities, 0.2)
    else:
        assert probabilities[0] > probabilities[1] == probabilities[2]
        assert (probabilities > 0).all()


def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="order=0"):
        KneserNey(rows([[1, 2]]), BASE, 0)
    with pytest.raises(ValueError, match="base probability 0"):
        KneserNey(rows([[1, 0]]), BASE, 2)
    KneserNey(rows([[0, 1]]), BASE, 2)  # it is given, not predicted


def slow_cache(probabilities: FloatArray, lists: Lists, weight: float, window: int) -> list[float]:
    result: list[float] = []
    for item in lists:
        for end in range(1, len(item)):
            recent = item[1:end][-window:]
            probability = float(probabilities[len(result)])
            share = recent.count(item[end]) / len(recent) if recent else probability
            result.append((1 - weight) * probability + weight * share)
    return result


@given(st.lists(ROW, max_size=8), st.integers(1, 12), st.floats(0, 1))
def test_the_cache_is_what_counting_says(lists: Lists, window: int, weight: float) -> None:
    text = rows(lists)
    probabilities = np.linspace(0.1, 0.9, int(text.is_target.sum()))
    got = with_cache(probabilities, text, weight, window)
    np.testing.assert_allclose(got, slow_cache(probabilities, lists, weight, window), rtol=1e-12)
