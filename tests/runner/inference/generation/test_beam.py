"""Beam search: exhaustive if wide enough, greedy at width 1, and independent of other prompts."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest

from runner.inference.generation.beam import Beam, beam_search
from runner.inference.generation.sampling import Continuation, collect, likeliest, steps
from runner.inference.trained import TrainedModel
from tests.helpers.language_models import language_model, log_p_of, trained

PROMPTS = ["", "a b c a", "b"]
LONGEST = 3


@lru_cache
def run_of(encoder: str, unit: str) -> TrainedModel:
    return trained(encoder, f"task.unit={unit}", ending=0.5)


@lru_cache
def everything(encoder: str, unit: str, text: str) -> dict[tuple[int, ...], float]:
    """Return log P of every continuation of up to LONGEST tokens, evaluated one by one; `<eos>` is the last token."""
    run = run_of(encoder, unit)
    vocab = run.vocabs["target"]
    ends = unit == "line"
    result: dict[tuple[int, ...], float] = {}
    sayable = [3, 4, 5] if ends else [2, 3, 4, 5]
    for length in range(LONGEST + 1):
        for ids in itertools.product(sayable, repeat=length):
            says = log_p_of(run, [*text.split(), *vocab.decode(ids)])[len(text.split()) :]
            log_p = sum(float(says[place, token]) for place, token in enumerate(ids))
            if length == LONGEST:
                result[ids] = log_p
            elif ends:
                result[*ids, 2] = log_p + float(says[length, 2])
    return result


def search(encoder: str, unit: str, texts: list[str], beam: Beam, longest: int = LONGEST) -> list[list[Continuation]]:
    model = language_model(run_of(encoder, unit))
    return beam_search(model, model.prompts(texts), beam, longest)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0, -1.0])
@pytest.mark.parametrize("n_best", [1, 5, 64])
@pytest.mark.parametrize(("encoder", "unit"), [("lstm", "line"), ("transformer", "line"), ("conv", "stream")])
def test_a_beam_as_wide_as_all_continuations_is_exhaustive(encoder: str, unit: str, n_best: int, alpha: float) -> None:
    beam = Beam(4**LONGEST, alpha, n_best)
    for text, actual in zip(PROMPTS, search(encoder, unit, PROMPTS, beam), strict=True):
        all_of_them = everything(encoder, unit, text)
        assert len(all_of_them) == (40 if unit == "line" else 64)
        scores = {ids: log_p / ((5 + len(ids)) / 6) ** alpha for ids, log_p in all_of_them.items()}
        best = sorted(scores, key=lambda ids: -scores[ids])[:n_best]
        assert [(*item.tokens, *([2] if item.ended else [])) for item in actual] == best
        assert [item.score for item in actual] == pytest.approx([scores[ids] for ids in best], abs=1e-9)
        assert [item.log_p for item in actual] == pytest.approx([all_of_them[ids] for ids in best], abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize(("encoder", "unit"), [("lstm", "line"), ("transformer", "line"), ("conv", "stream")])
def test_a_beam_of_one_is_greedy(encoder: str, unit: str, alpha: float) -> None:
    model = language_model(run_of(encoder, unit))
    texts = [" ".join(words) for words in itertools.product("abc", repeat=3)]
    greedy = collect(steps(model, model.prompts(texts), 1, likeliest, 8), model, len(texts), 1)
    actual = search(encoder, unit, texts, Beam(1, alpha, 1), 8)
    assert [(item.tokens, item.ended) for (item,) in actual] == [(item.tokens, item.ended) for (item,) in greedy]
    assert [item.log_p for (item,) in actual] == pytest.approx([item.log_p for (item,) in greedy], abs=1e-9)


@pytest.mark.parametrize("encoder", ["lstm", "transformer", "conv"])
@pytest.mark.parametrize("beam", [Beam(3, 0.0, 3), Beam(4, 1.0, 2)])
def test_other_prompts_change_no_hypothesis(encoder: str, beam: Beam) -> None:
    texts = ["a b c a b c a b c", "", "b", "c c", "a"]
    together = search(encoder, "line", texts, beam, 7)
    alone = [search(encoder, "line", [text], beam, 7)[0] for text in texts]
    for mine, theirs in zip(together, alone, strict=True):
        assert [(item.tokens, item.ended) for item in mine] == [(their.tokens, their.ended) for their in theirs]
        assert [item.log_p for item in mine] == pytest.approx([their.log_p for their in theirs], abs=1e-9)
        assert len(mine) == beam.n_best


def test_a_narrow_beam_equals_a_plain_loop() -> None:
    """Reference implementation: extend every hypothesis, keep the best that fit, set finished ones aside."""
    run = run_of("lstm", "line")
    for text, actual in zip(PROMPTS, search("lstm", "line", PROMPTS, Beam(3, 0.5, 3), 5), strict=True):
        live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
        ended: list[tuple[tuple[int, ...], float]] = []
        for _ in range(5):
            extended = []
            for ids, log_p in live:
                says = log_p_of(run, [*text.split(), *run.vocabs["target"].decode(ids)])[-1]
                extended += [((*ids, token), log_p + float(says[token])) for token in (2, 3, 4, 5)]
            best = sorted(extended, key=lambda one: -one[1])[: 3 - len(ended)]
            ended += [item for item in best if item[0][-1] == 2]
            live = [item for item in best if item[0][-1] != 2]
        scored = sorted(((log_p / ((5 + len(ids)) / 6) ** 0.5, ids) for ids, log_p in [*ended, *live]), reverse=True)
        assert [(*item.tokens, *([2] if item.ended else [])) for item in actual] == [ids for _, ids in scored]


def test_hypotheses_that_can_no_longer_win_cost_nothing() -> None:
    """A wide beam over many steps reads fewer tokens with n_best=1 than with all hypotheses."""
    run = trained("lstm")
    model = language_model(run)
    read: list[int] = []
    run.model.encoder.register_forward_hook(lambda module, args, output: read.append(args[0].rows.n_tokens))
    prompts = model.prompts(PROMPTS)
    all_of_them = beam_search(model, prompts, Beam(8, 0.0, 8), 12)
    tokens, best = sum(read), [item[0] for item in all_of_them]
    read.clear()
    assert [item for (item,) in beam_search(model, prompts, Beam(8, 0.0, 1), 12)] == best
    assert np.sum(read) < tokens / 2
    assert beam_search(model, model.prompts([]), Beam(8, 0.0, 1), 12) == []


@pytest.mark.parametrize("alpha", [0.0, 0.7, 3.0, -1.0])
def test_the_bound_is_the_highest_reachable_score(alpha: float) -> None:
    beam = Beam(1, alpha, 1)
    for length, most in itertools.combinations(range(9), 2):
        best = max(beam.score(-4.2, longer) for longer in range(length + 1, most + 1))
        assert beam.bound(-4.2, length, most) == best
