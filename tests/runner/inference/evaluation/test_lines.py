"""Log P of lines equals that of single tokens, for every batch and window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from runner.common.errors import HydromelError
from runner.embeddings.ngrams import NgramEmbedding
from runner.inference.evaluation import lines as module
from runner.inference.evaluation.lines import LineScorer
from runner.inference.evaluation.tally import Tally
from runner.inference.trained import TrainedModel
from runner.text.vocab import EOS
from tests.helpers.language_models import ids_of, language_model, log_p_of, trained

ENCODERS = ("lstm", "conv", "transformer", "none")
TEXT = ["a b c a", "", "c  c c zebra b a a b c", "b", "  a", "", "c a b b a c c", "zebra zoo a\tb"]
EXACT = {"rel": 1e-9, "abs": 1e-9}


def expected(run: TrainedModel, words: Sequence[str]) -> float:
    """Return -log P of the words and the line's end, from the probabilities of the whole line."""
    log_p, ids = log_p_of(run, words), ids_of(run)
    return -sum(float(log_p[place, ids.get(word, 1)]) for place, word in enumerate([*words, EOS]))


@pytest.fixture(params=[(2048, 16_384), (3, 16_384), (3, 4), (1, 1)])
def _windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test large and small windows of a line, and numbers of tokens per batch."""
    monkeypatch.setattr(module, "WINDOW", request.param[0])
    monkeypatch.setattr(module, "TOKENS", request.param[1])


@pytest.mark.usefixtures("_windows")
@pytest.mark.parametrize("encoder", ENCODERS)
def test_lines_by_themselves(encoder: str) -> None:
    run = trained(encoder)
    words = [line.split() for line in TEXT]
    wanted = [expected(run, some) for some in words]
    for batch_size in (1, 3, 100):
        actual = LineScorer(language_model(run), False, batch_size).score(TEXT)
        assert [item.nats for item in actual] == pytest.approx(wanted, **EXACT)
    assert [item.tokens for item in actual] == [len(some) + 1 for some in words]
    assert [item.unknown for item in actual] == [0, 0, 1, 0, 0, 0, 0, 2], "white space separates, as in training"
    assert [item.words for item in actual] == [item.tokens for item in actual]
    assert [item.characters for item in actual] == [len(" ".join(some)) + 1 for some in words]


@pytest.mark.usefixtures("_windows")
@pytest.mark.parametrize("encoder", ["lstm", "conv", "transformer"])
def test_a_text_with_its_context(encoder: str) -> None:
    """log P of line k is that of k lines minus that of k - 1 lines, for any number of lines per call."""
    memory = ["encoder.memory=4"] if encoder == "transformer" else []
    run = trained(encoder, "task.unit=stream", *memory)
    tokens = [word for line in TEXT for word in (*line.split(), EOS)]
    lengths = np.array([len(line.split()) + 1 for line in TEXT])
    log_p, ids = log_p_of(run, tokens[:-1]), ids_of(run)
    item = [-float(log_p[place, ids.get(word, 1)]) for place, word in enumerate(tokens)]
    wanted = [sum(some) for some in np.split(np.array(item), np.cumsum(lengths)[:-1])]
    for at_a_time in (1, 3, 100):
        scorer = LineScorer(language_model(run), True, 1)
        actual = [item for first in range(0, len(TEXT), at_a_time) for item in scorer.score(TEXT[first:][:at_a_time])]
        assert [item.nats for item in actual] == pytest.approx(wanted, **EXACT)
        assert [item.tokens for item in actual] == lengths.tolist()


def test_characters_are_also_counted_as_words() -> None:
    run = trained("lstm", "dataset.unit=char", words=("a", "b", " ", "é"))
    (item,) = LineScorer(language_model(run), False, 1).score(["é  ab x"])
    assert (item.tokens, item.unknown, item.words, item.characters) == (8, 1, 4, 8)
    assert item.nats == pytest.approx(expected(run, list("é  ab x")), **EXACT)


def test_an_enormous_line_is_read_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model never reads more tokens at once than allowed, including other lines of the batch."""
    run, sizes = trained("lstm"), []
    monkeypatch.setattr(module, "WINDOW", 64)
    monkeypatch.setattr(module, "TOKENS", 128)
    run.model.embedding.register_forward_pre_hook(lambda _, args: sizes.append(args[0]["words"].rows.n_tokens))
    text = ["a b", " ".join(["a", "c"] * 5000), *["b c a"] * 100]
    actual = LineScorer(language_model(run), False, 100).score(text)
    assert sum(sizes) == sum(item.tokens for item in actual) == 3 + 10_001 + 400
    assert max(sizes) <= 128
    assert actual[1].nats == pytest.approx(expected(run, text[1].split()), **EXACT)


def test_models_that_cannot_read_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 4)
    run = trained("lstm")
    monkeypatch.setattr(run.model.encoder, "forward", lambda x, state: (x.map(lambda v: v.new_zeros(len(v), 6)), None))
    scorer = LineScorer(language_model(run), False, 2)
    scorer.score(["a b c"])
    with pytest.raises(HydromelError, match=r"run: its encoder \(\w+\) carries no state"):
        scorer.score(["a b c", "a b c a"])
    run = trained("none")
    run.model.embedding = NgramEmbedding(
        vocabs=run.vocabs, feature="words", lengths=[1, 2], buckets=9, size=5, dropout=0.0
    ).double()
    with pytest.raises(HydromelError, match="at most 4 tokens"):
        LineScorer(language_model(run), False, 2).score(["a b c a"])
    with pytest.raises(HydromelError, match="cannot read a text in windows"):
        LineScorer(language_model(run), True, 2)


def test_a_written_pad_is_an_unknown_word() -> None:
    run = trained("lstm")
    written = LineScorer(language_model(run), False, 2).score(["a", "b <pad> <eos> <unk> c"])
    assert written == LineScorer(language_model(run), False, 2).score(["a", "b xxxxx yyyyy zzzzz c"])
    assert [item.unknown for item in written] == [0, 3]


def test_figures_of_a_worked_case() -> None:
    """Two words of 4 characters in all, with token probabilities 1/4, 1/3, 1/4, 1/3, as in the golden case."""
    nats = -torch.tensor([1 / 4, 1 / 3, 1 / 4, 1 / 3], dtype=torch.float64).log()
    parts = [Tally(float(nat), 1, 0, place % 2, place) for place, nat in enumerate(nats)]
    figures = sum(parts, start=Tally()).figures()
    assert figures["perplexity"] == pytest.approx(12**0.5, rel=1e-12)
    assert figures["nll"] == pytest.approx(1.242, abs=5e-4)
    assert figures["log_p"] == pytest.approx(-2 * math.log(12), rel=1e-12)
    assert figures["bits_per_token"] == pytest.approx(math.log2(12) / 2, rel=1e-12)
    assert figures["word_perplexity"] == pytest.approx(12.0, rel=1e-12)
    assert figures["nats_per_word"] == pytest.approx(math.log(12), rel=1e-12)
    assert figures["bits_per_character"] == pytest.approx(math.log2(12) * 2 / 6, rel=1e-12)
