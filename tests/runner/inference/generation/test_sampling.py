"""Greedy generation and samples agree with evaluation, and do not depend on the batch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from runner.inference.generation import language_model as reading
from runner.inference.generation.language_model import LanguageModel
from runner.inference.generation.sampling import Continuation, Sampling, collect, keys_of, likeliest, steps
from tests.helpers.language_models import language_model, log_p_of, rounding, trained

PROMPTS = ["", "a b c a b c a b c a c", "b", "c c c a", "a z"]
CASES = [
    ("lstm", []),
    ("conv", []),
    ("none", []),
    ("transformer", []),
    ("transformer", ["encoder.memory=3", "encoder.positions=rotary"]),
    (
        "lstm",
        ["features=words_chars", "embedding=word_char", "embedding.parts.words.size=3", "features.chars.min_count=1"],
    ),
]
cases = pytest.mark.parametrize(("encoder", "changed"), CASES)


def drawn(
    model: LanguageModel, texts: list[str], numbers: list[int], samples: int, length: int, **how: Any
) -> list[list[Continuation]]:
    options = {"temperature": 1.0, "top_k": None, "top_p": None} | how
    choose = Sampling(keys_of(5, numbers, samples, torch.device("cpu")), **options)
    prompts = model.prompts(texts)
    return collect(steps(model, prompts, samples, choose, length), model, len(texts), samples)


def greedy(model: LanguageModel, texts: list[str], length: int) -> list[Continuation]:
    result = steps(model, model.prompts(texts), 1, likeliest, length)
    return [item for (item,) in collect(result, model, len(texts), 1)]


@cases
def test_greedy_generation(encoder: str, changed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with reading the whole row again for each token; prompts are read in windows of one or two tokens."""
    monkeypatch.setattr(reading, "READ_TOKENS", 8)
    run = trained(encoder, *changed)
    model = language_model(run)
    for text, item in zip(PROMPTS, greedy(model, PROMPTS, 6), strict=True):
        words, log_p = text.split(), 0.0
        while len(words) < len(text.split()) + 6:
            says = log_p_of(run, words)[-1]
            says[[0, 1]] = -np.inf
            best = int(says.argmax())
            log_p += says[best]
            if best == 2:
                break
            words.append(model.vocab.tokens[best])
        assert [*text.split(), *model.vocab.decode(item.tokens)] == words
        assert item.ended == (best == 2)
        assert item.log_p == item.score == pytest.approx(log_p, abs=1e-9)


# over a stream, a transformer needs a limit to its memory
UNITS = [
    (*case, unit) for unit in ("line", "stream") for case in CASES if unit == "line" or case != ("transformer", [])
]


@pytest.mark.parametrize(("encoder", "changed", "unit"), UNITS)
def test_batch_and_order_change_no_token(
    encoder: str, changed: list[str], unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = language_model(trained(encoder, *changed, f"task.unit={unit}"))
    how = {"temperature": 1.3, "top_k": 3, "top_p": 0.9}
    together = drawn(model, PROMPTS, [0, 1, 2, 3, 4], 3, 8, **how)
    backwards = drawn(model, PROMPTS[::-1], [4, 3, 2, 1, 0], 3, 8, **how)[::-1]
    monkeypatch.setattr(reading, "READ_TOKENS", 2)
    alone = [drawn(model, [text], [number], 3, 8, **how)[0] for number, text in enumerate(PROMPTS)]
    for other in (backwards, alone):
        for mine, theirs in zip(itertools.chain(*together), itertools.chain(*other), strict=True):
            assert (mine.tokens, mine.ended) == (theirs.tokens, theirs.ended)
            assert mine.log_p == pytest.approx(theirs.log_p, rel=0, abs=rounding(model, mine.log_p))
    assert len({tuple(item.tokens) for item in itertools.chain(*together)}) > 5
    assert [item.tokens for item in greedy(model, PROMPTS, 8)] == [
        greedy(model, [text], 8)[0].tokens for text in PROMPTS
    ]


def test_more_samples_start_with_the_same_ones() -> None:
    model = language_model(trained("lstm"))
    few, many = drawn(model, ["a"], [0], 2, 5)[0], drawn(model, ["a"], [0], 20, 5)[0]
    for one in few:
        same = [other for other in many if (other.tokens, other.ended) == (one.tokens, one.ended)]
        assert len(same) == 1
        assert same[0].log_p == pytest.approx(one.log_p, rel=0, abs=rounding(model, one.log_p))
    assert [item.log_p for item in many] == sorted((item.log_p for item in many), reverse=True)


@pytest.mark.parametrize(("unit", "temperature", "allow_unk"), [("line", 1.0, True), ("stream", 0.6, False)])
def test_samples_have_the_models_frequencies(unit: str, temperature: float, allow_unk: bool) -> None:
    """Test 20,000 samples of two tokens by chi-square against the product of evaluation's probabilities."""
    run = trained("lstm", f"task.unit={unit}")
    model = language_model(run, allow_unk)
    (actual,) = drawn(model, ["b a"], [7], 20_000, 2, temperature=temperature)
    expected: dict[tuple[int, ...], float] = {}
    for first in range(len(model.vocab)):
        weight = _shares(log_p_of(run, ["b", "a"])[-1], temperature, allow_unk)[first]
        if first == model.end:
            expected[()] = weight
            continue
        after = log_p_of(run, ["b", "a", model.vocab.tokens[first]])[-1]
        for second, share in enumerate(_shares(after, temperature, allow_unk)):
            key = (first,) if second == model.end else (first, second)
            expected[key] = weight * share
    keys = [key for key, share in expected.items() if share > 0]
    assert sum(expected.values()) == pytest.approx(1)
    counts = dict.fromkeys(keys, 0)
    for item in actual:
        counts[tuple(item.tokens)] += 1
    test = chisquare([counts[key] for key in keys], [20_000 * expected[key] for key in keys])
    assert test.pvalue > 0.01


def _shares(log_p: Any, temperature: float, allow_unk: bool) -> list[float]:
    weights = np.exp(log_p / temperature)
    weights[[0] if allow_unk else [0, 1]] = 0
    shares: list[float] = (weights / weights.sum()).tolist()
    return shares


@pytest.mark.parametrize("top_k", [None, 1, 3, 40])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_truncation_keeps_the_likeliest_tokens(top_k: int | None, top_p: float | None, temperature: float) -> None:
    torch.manual_seed(4)
    log_p = torch.randn(20, 12, dtype=torch.float64).mul(2).log_softmax(dim=1)
    log_p[:, 5] = -torch.inf
    log_p[3, 1:5] = -1.0  # ties are kept or dropped together
    weights = Sampling(torch.zeros(20, dtype=torch.int64), temperature, top_k, top_p).weights(log_p)
    for given, got in zip(log_p.tolist(), weights, strict=True):
        kept, share = _kept(given, temperature, top_k, top_p)
        assert set(torch.isfinite(got).nonzero().flatten().tolist()) == kept
        shares = got.softmax(dim=0)
        assert [float(shares[token]) for token in sorted(kept)] == pytest.approx(
            [share[token] for token in sorted(kept)]
        )


def _kept(
    log_p: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> tuple[set[int], dict[int, float]]:
    """Reference implementation, token by token from the likeliest."""
    share = {token: np.exp(item / temperature) for token, item in enumerate(log_p) if item > -np.inf}
    falling = sorted(share, key=lambda token: -share[token])
    if top_k is not None:
        last = share[falling[min(top_k, len(falling)) - 1]]
        falling = [token for token in falling if share[token] >= last]
    total = sum(share[token] for token in falling)
    kept: list[int] = []
    for token in falling:
        enough = top_p is not None and top_p < 1 and sum(share[item] for item in kept) / total >= top_p
        if enough and share[token] < share[kept[-1]] * (1 - 1e-12):
            break
        kept.append(token)
    total = sum(share[token] for token in kept)
    return set(kept), {token: share[token] / total for token in kept}


def test_a_temperature_near_zero_is_greedy() -> None:
    model = language_model(trained("lstm"))
    for temperature in (1e-3, 1e-300):
        actual = drawn(model, PROMPTS, [0, 1, 2, 3, 4], 1, 8, temperature=temperature)
        assert [item.tokens for (item,) in actual] == [item.tokens for item in greedy(model, PROMPTS, 8)]


@pytest.mark.parametrize("unit", ["line", "stream"])
def test_log_p_equals_evaluation(unit: str) -> None:
    """log P is the model's own, of the tokens and of the end if it came, whatever the sampling."""
    run = trained("lstm", f"task.unit={unit}")
    model = language_model(run)
    actual = drawn(model, PROMPTS[:4], [0, 1, 2, 3], 5, 6, temperature=3.0)
    ends = 0
    for text, continuations in zip(PROMPTS, actual, strict=False):
        for continuation in continuations:
            words = text.split()
            says = log_p_of(run, [*words, *model.vocab.decode(continuation.tokens)])[len(words) :]
            ids = [*continuation.tokens, *([2] if continuation.ended else [])]
            assert continuation.log_p == pytest.approx(
                sum(says[place, token] for place, token in enumerate(ids)), abs=1e-9
            )
            assert len(ids) <= 6
            assert continuation.ended or len(ids) == 6
            ends += continuation.ended
    assert (ends > 0) == (unit == "line")


def test_rows_that_ended_cost_nothing() -> None:
    run = trained("lstm")
    model = language_model(run)
    read: list[int] = []
    run.model.encoder.register_forward_hook(lambda module, args, output: read.append(args[0].rows.n_tokens))
    actual = drawn(model, PROMPTS, [0, 1, 2, 3, 4], 4, 9)
    printed = [len(item.tokens) + item.ended for item in itertools.chain(*actual)]
    assert min(printed) < max(printed)
    assert sum(read) == sum(len(text.split()) for text in PROMPTS) + sum(printed)
    assert read[1:] == [sum(item > step for item in printed) for step in range(max(printed))]


def test_no_prompts_and_forbidden_tokens() -> None:
    model = language_model(trained("lstm"))
    assert greedy(model, [], 5) == []
    with_unk = language_model(trained("lstm"), allow_unk=True)
    many = drawn(with_unk, ["a"], [0], 300, 8)[0]
    output = {token for item in many for token in item.tokens}
    assert output == {1, 3, 4, 5}
    assert {token for item in drawn(model, ["a"], [0], 300, 8)[0] for token in item.tokens} == {3, 4, 5}
