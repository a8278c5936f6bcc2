"""Vectors of words, composed of their characters: by convolutions, or by a recurrent layer.

What a form is composed to has no context, so a batch composes each of its distinct forms once. Which these are is told
by ids on the host (`Ragged.on_host`): a device would have to be waited for. Their characters are rows of their own, one
a form. Dropout falls on the tokens' vectors, not on the forms': two tokens of one form lose different numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.errors import HydromelError, no_feature
from runner.common.types import Fraction, NonNegativeInt, PositiveInt
from runner.embeddings.concat import Splits
from runner.layers.convolution import Convolution, side_by_side
from runner.layers.dropout import Dropout
from runner.layers.highway import Highway
from runner.layers.pooling import first_pool, last_pool, max_pool
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.ragged.ragged import Ragged
from runner.ragged.rows import sent, spans
from runner.text.characters import FIRST, Spelling, spell
from runner.text.vocab import Vocab


class Spelled(nn.Module):
    """Characters of the distinct forms of a batch.

    How forms are spelt is made from the vocabulary, and no part of a checkpoint: a model for more forms has the same
    weights.

    Args:
        vocabs: of all features.
        feature: of forms (`runner.text.features.Characters`).
        size: D, numbers a character.
        max_characters: of a form that are read; longer ones are cut.

    Attributes:
        composed: `real` and `padded` characters of all that was asked for so far, counted on the host.

    Raises:
        HydromelError: no feature of that name, or one that has no characters.
    """

    def __init__(self, vocabs: Mapping[str, Vocab], feature: str, size: int, max_characters: int) -> None:
        super().__init__()
        if feature not in vocabs or feature == "target":
            raise no_feature(feature, vocabs)
        self.feature, self.max_characters = feature, max_characters
        self.composed = {"real": 0, "padded": 0}
        self.alphabet = vocabs[feature].alphabet
        if not self.alphabet:
            raise HydromelError(
                f"embedding.feature={feature}: features.{feature} has no characters; use one whose _target_ is "
                "runner.text.features.Characters, such as features=words_chars, and a min_count that leaves some"
            )
        self.table = nn.Embedding(FIRST + len(self.alphabet), size)
        self.register_buffer("symbols", None, persistent=False)
        self.symbols: Tensor
        self.admit(vocabs)

    def admit(self, vocabs: Mapping[str, Vocab]) -> None:
        """Spell the forms of vocabularies that have grown since (`runner.text.open_vocabulary`)."""
        self.spelling: Spelling = spell(vocabs[self.feature].tokens, self.alphabet, self.max_characters)
        self.symbols = torch.from_numpy(self.spelling.symbols).to(self.table.weight.device)

    def forward(self, ids: Ragged) -> tuple[Ragged, Tensor]:
        """Ids of N tokens -> rows of (characters, D), one a distinct form, packed; (N,) the row of each token."""
        forms, of_token = np.unique(ids.on_host(), return_inverse=True)
        starts, ends = self.spelling.offsets[forms], self.spelling.offsets[forms + 1]
        rows, places = spans(starts, ends - starts, self.symbols.device)
        rows.stepped = ids.rows.stepped
        vectors = self.table(self.symbols.index_select(0, places))
        characters = Ragged(vectors, rows, "packed")
        self.composed["real"] += rows.n_tokens
        self.composed["padded"] += characters.padded_tokens
        return characters, sent(of_token, vectors.device)

    def describe(self, splits: Splits) -> dict[str, Any]:
        """What `result.json` says of these characters."""
        cut = self.spelling.cut
        return {
            "feature": self.feature,
            "characters": len(self.alphabet),
            "max_characters": self.max_characters,
            "cut_forms": int(cut.sum()),
            "cut_tokens": {
                name: int(cut[split.features[self.feature].on_host()].sum()) for name, split in splits.items()
            },
        }


def describe_characters(model: nn.Module, splits: Splits) -> list[dict[str, Any]]:
    """What `result.json` says of each embedding of characters in the model."""
    return [module.describe(splits) for module in model.modules() if isinstance(module, Spelled)]


def composed_characters(model: nn.Module) -> dict[str, int]:
    """Characters that the model's embeddings composed so far, real and padded; {} where it has no such embedding."""
    counts = [module.composed for module in model.modules() if isinstance(module, Spelled)]
    return {key: sum(one[key] for one in counts) for key in counts[0]} if counts else {}


def line_of_cuts(described: Mapping[str, Any]) -> str | None:
    """What the console says of words that were cut; None where none was."""
    if not described["cut_forms"]:
        return None
    cut = ", ".join(f"{split} {tokens:,}" for split, tokens in described["cut_tokens"].items())
    return (
        f"{described['cut_forms']:,} forms of features.{described['feature']} are longer than "
        f"max_characters={described['max_characters']} and are cut; tokens of {cut}"
    )


class CharConv(nn.Module):
    """Convolutions over a word's characters, each filter's largest output, optionally highway layers (Kim et al. 2016).

    Args:
        vocabs: of all features.
        feature: of forms (`runner.text.features.Characters`).
        size: numbers a character.
        max_characters: of a word that are read; longer ones are cut, and counted.
        widths: characters that the filters see.
        filters: of each width.
        activation: relu or tanh, before the largest is taken.
        highway: how many such layers.
        dropout: probability of dropping a number of a word's vector.

    Raises:
        ValueError: no widths.
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: str,
        size: PositiveInt,
        max_characters: PositiveInt,
        widths: list[PositiveInt],
        filters: PositiveInt,
        activation: Literal["relu", "tanh"],
        highway: NonNegativeInt,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths=[]: at least one width is needed, for example [3]")
        self.spelled = Spelled(vocabs, feature, size, max_characters)
        self.convolutions = nn.ModuleList(Convolution(size, filters, width, causal=False) for width in widths)
        self.activation = nn.ReLU() if activation == "relu" else nn.Tanh()
        self.output_size = filters * len(widths)
        self.highway = nn.Sequential(*(Highway(self.output_size) for _ in range(highway)))
        self.dropout = Dropout(dropout)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Ids of forms -> rows of (length, filters * number of widths)."""
        ids = features[self.spelled.feature]
        characters, of_token = self.spelled(ids)
        # no activation changes which output is largest
        largest = max_pool(side_by_side([*self.convolutions], characters, None))
        vectors = self.highway(self.activation(largest))
        return self.dropout.of(_of_tokens(vectors, of_token, ids))


class CharRnn(nn.Module):
    """The last states of a recurrent layer over a word's characters, read forwards and backwards (Lample et al. 2016).

    Args:
        vocabs: of all features.
        feature: of forms (`runner.text.features.Characters`).
        size: numbers a character.
        max_characters: of a word that are read; longer ones are cut, and counted.
        cell: rnn, gru or lstm.
        hidden: numbers a direction.
        dropout: probability of dropping a number of a word's vector.
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: str,
        size: PositiveInt,
        max_characters: PositiveInt,
        cell: Cell,
        hidden: PositiveInt,
        dropout: Fraction,
    ) -> None:
        super().__init__()
        self.spelled = Spelled(vocabs, feature, size, max_characters)
        self.forwards = Recurrence(cell, size, hidden, reverse=False)
        self.backwards = Recurrence(cell, size, hidden, reverse=True)
        self.output_size = 2 * hidden
        self.dropout = Dropout(dropout)

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Ids of forms -> rows of (length, 2 * hidden)."""
        ids = features[self.spelled.feature]
        characters, of_token = self.spelled(ids)
        (ahead, _), (back, _) = self.forwards(characters, None), self.backwards(characters, None)
        return self.dropout.of(_of_tokens(torch.cat([last_pool(ahead), first_pool(back)], dim=-1), of_token, ids))


def _of_tokens(vectors: Tensor, of_token: Tensor, ids: Ragged) -> Ragged:
    """(U, D) of forms, (N,) the form of each token -> rows of (length, D) in the layout of `ids`."""
    tokens = Ragged(F.embedding(of_token, vectors), ids.rows, "packed")
    return tokens.pad() if ids.layout == "padded" else tokens
