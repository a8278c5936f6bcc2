"""Prompts equal the encoding of the same text by the task; models that cannot generate raise an error."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.data.numericalize import columns_of
from runner.inference.generation.language_model import Text
from runner.inference.trained import TrainedModel
from runner.ragged.ragged import Ragged
from runner.text.bpe import all_pieces, learn_merges
from runner.text.features import extend_vocabulary
from runner.text.pieces import MergedPieces
from runner.text.vocab import EOS, SPECIALS, Vocab
from tests.helpers.language_models import language_model, trained

MERGES = learn_merges([pa.array(["café", "low", "lower", "lowest"] * 9)], 12, 2)


@dataclass
class Corpus:
    unit: str


def inputs_of(run: TrainedModel, lines: list[list[str]]) -> dict[str, list[int]]:
    """Return the ids of a text as in training, including new words."""
    table = pa.table({"tokens": pa.array(lines, pa.list_(pa.string()))})
    vocabs = extend_vocabulary(run.model, run.vocabs, run.features, table)
    batch = run.task.encode(columns_of(table, run.features, vocabs), table, vocabs)
    return {name: feature.values.tolist() for name, feature in batch.features.items()}


@pytest.mark.parametrize("features", ["words", "words_chars", "[words,casing,suffix]"])
def test_prompts_are_read_as_in_training(features: str) -> None:
    minimum = ["features.chars.min_count=1"] if features == "words_chars" else []
    run = trained("none", "task.unit=stream", f"features={features}", *minimum)
    texts = ["a b\nc a\n", "", "b Z b", "\n", "c"]
    prompts = language_model(run).prompts(texts)
    for place, text in enumerate(texts):
        expected = inputs_of(run, [line.split() for line in text.split("\n")])
        for name, item in prompts.ids.items():
            start, end = item.rows.host_offsets[place : place + 2]
            assert item.values[start:end].tolist() == expected[name]
            assert prompts.last[name][place] == expected[name][-1]
    assert prompts.unknown == [[], [], ["Z"], [], []]
    for token, string in enumerate(run.vocabs["target"].tokens[2:], start=2):
        ids = inputs_of(run, [[] if string == EOS else [string]])
        assert {name: item[token] for name, item in prompts.following.items()} == {
            name: item[-1] for name, item in ids.items()
        }


def test_pieces_of_words() -> None:
    run = trained("none", "features=bpe", words=all_pieces(MERGES))
    vocab = replace(run.vocabs["target"], merges=MERGES)
    run = replace(run, vocabs={"words": vocab, "target": vocab})
    model = language_model(run)
    texts = ["lower café", "", "ñ low"]
    prompts = model.prompts(texts)
    for place, text in enumerate(texts):
        start, end = prompts.ids["words"].rows.host_offsets[place : place + 2]
        ids = prompts.ids["words"].values[start:end].tolist()
        assert ids == inputs_of(run, [text.split()])["words"]
        assert model.text.joined(model.strings(ids[1:]), behind="") == text
        assert "".join(model.text.pieces(model.strings(ids[1:]), behind="x")) == (f" {text}" if text else "")
    assert prompts.unknown == [[], [], []]
    assert prompts.inputs(torch.tensor([5, 2]).numpy())["words"].tolist() == [5, 2]


@pytest.mark.parametrize(
    ("text", "tokens", "behind", "expected"),
    [
        (Text("word"), ["a", "b"], "", ["a", " b"]),
        (Text("word"), ["a", "\n", "\n", "b"], "x", [" a", "\n", "\n", "b"]),
        (Text("word"), ["a"], "x ", ["a"]),
        (Text("char"), ["a", " ", "\n", "b"], "x", ["a", " ", "\n", "b"]),
        (
            Text("word", by_pieces=MergedPieces(MERGES)),
            ["Ġ", "Ã", "©", "\n", "\n", "Ġlow", "er", "\n"],
            "x",
            [" ", "", "é", "\n", "\n", "low", "er", "\n"],
        ),
        (Text("word", by_pieces=MergedPieces(MERGES)), ["er", "Ġlow"], "low", ["er", " low"]),
        (Text("word", by_pieces=MergedPieces(MERGES)), ["Ġlow", "Ã", "\n"], "", ["low", "", "�", "\n"]),
    ],
)
def test_text_of_each_token(text: Text, tokens: list[str], behind: str, expected: list[str]) -> None:
    assert list(text.pieces(tokens, behind)) == expected
    # and no token is withheld for longer than necessary
    endless = text.pieces(itertools.chain(tokens, itertools.repeat(tokens[-1])), behind)
    assert list(itertools.islice(endless, len(expected))) == expected


def test_the_unit_of_tokens() -> None:
    letters, words = (Vocab((*some,), SPECIALS) for some in ("ab", ("ab", "c")))
    assert Text.of(Corpus("word"), letters) == Text("word")  # type: ignore[arg-type]
    assert Text.of(Corpus("char"), words) == Text("char")  # type: ignore[arg-type]
    assert Text.of(object(), letters) == Text("char")  # type: ignore[arg-type]
    assert Text.of(object(), words) == Text("word")  # type: ignore[arg-type]


class Forgetful(nn.Module):
    def forward(self, x: Ragged, state: Any) -> tuple[Ragged, None]:
        return x, None


def test_models_that_cannot_generate() -> None:
    run = trained("none")
    run.model.encoder = Forgetful()
    model = language_model(run)
    with pytest.raises(HydromelError, match=r"^run: its encoder \(Forgetful\) carries no state from token to token; "):
        model.read(model.prompts(["a b"]))
    prompts = model.prompts([""])
    with pytest.raises(HydromelError, match="carries no state"):
        model.step(prompts.last, model.read(prompts))
    run = trained("none")
    features = run.features | {"pos": replace(run.features["words"], column="pos")}  # type: ignore[type-var]
    with pytest.raises(HydromelError, match="inputs need the columns pos, tokens, but a generated text"):
        language_model(replace(run, features=features))
