"""Word vectors composed from characters by convolutions or by a recurrent layer.

A form is a word as it is spelled. Its vector does not depend on its context, so a batch composes each of its distinct
forms only once, as a row of characters. The distinct forms are computed from ids on the host (`Ragged.on_host`), to
avoid a synchronisation with the device. Dropout is applied to the tokens' vectors, not to the forms': two tokens of the
same form get different masks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.errors import HydromelError
from runner.common.types import AddedLayers, Fraction, Name, PositiveInt, Size, Widths
from runner.interfaces import Description
from runner.layers.convolution import Convolution, convolve_parallel
from runner.layers.dropout import Dropout
from runner.layers.pooling import first_pool, last_pool, max_pool
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.layers.residual import Highway
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import copy_to_device, select_spans
from runner.text.characters import FIRST, Spelling, spell
from runner.text.vocab import Vocab, vocab_of


class CharacterTable(nn.Module):
    """A look-up of character vectors for the distinct forms of a batch.

    The spelling of forms comes from the vocabulary, not from a checkpoint: a model for more forms has the same weights.

    Args:
        feature: a feature of forms (`runner.text.features.Characters`).
        size: D, size of a character's vector.
        max_characters: number of characters read of each form; longer forms are truncated and counted.
    """

    def __init__(self, vocabs: Mapping[str, Vocab], feature: Name, size: int, max_characters: int) -> None:
        super().__init__()
        self.alphabet = vocab_of(vocabs, feature).alphabet
        self.feature, self.max_characters = feature, max_characters
        self.composed = {"real": 0, "padded": 0}  # characters looked up so far, counted on the host
        if not self.alphabet:
            raise HydromelError(
                f"embedding.feature={feature}: features.{feature} has no characters; use a feature with the _target_ "
                "runner.text.features.Characters, such as features=words_chars, and a lower min_count"
            )
        self.table = nn.Embedding(FIRST + len(self.alphabet), size)
        self.register_buffer("symbols", None, persistent=False)
        self.symbols: Tensor
        self.extend_vocabulary(vocabs)

    def extend_vocabulary(self, vocabs: Mapping[str, Vocab]) -> None:
        """Spell the forms of extended vocabularies (see `runner.text.features.extend_vocabulary`)."""
        self.spelling: Spelling = spell(vocabs[self.feature], self.alphabet, self.max_characters)
        self.symbols = torch.from_numpy(self.spelling.symbols).to(self.table.weight.device)

    def forward(self, ids: Ragged) -> tuple[Ragged, Tensor]:
        """Return packed rows of (characters, D), one per distinct form of N tokens, and the row (N,) of each token."""
        # `select_spans` lists the places of the forms' characters among the symbols of all forms.
        forms, form_of_token = np.unique(ids.on_host(), return_inverse=True)
        starts, ends = self.spelling.offsets[forms], self.spelling.offsets[forms + 1]
        rows, places = select_spans(starts, ends - starts, self.symbols.device)
        rows.stepwise = ids.rows.stepwise
        vectors = self.table(self.symbols.index_select(0, places))
        characters = Ragged(vectors, rows, "packed")
        self.composed["real"] += rows.n_tokens
        self.composed["padded"] += characters.padded_tokens
        return characters, copy_to_device(form_of_token, vectors.device)

    def counters(self) -> dict[str, dict[str, int]]:
        """Return the number of characters composed so far (`runner.interfaces.HasCounters`)."""
        return {"characters": {**self.composed}}

    def describe(self, splits: Mapping[str, Batch]) -> Description:
        """Return the number of truncated forms (`runner.interfaces.HasDescription`)."""
        cut, cut_forms = self.spelling.cut, int(self.spelling.cut.sum())
        cut_tokens = {name: int(cut[split.features[self.feature].on_host()].sum()) for name, split in splits.items()}
        limits = {"characters": len(self.alphabet), "max_characters": self.max_characters}
        entry = {"feature": self.feature, **limits, "cut_forms": cut_forms, "cut_tokens": cut_tokens}
        affected = ", ".join(f"{split} {tokens:,}" for split, tokens in cut_tokens.items())
        line = (
            f"{cut_forms:,} forms of features.{self.feature} are longer than max_characters={self.max_characters} "
            f"and are truncated; affected tokens: {affected}"
        )
        return Description("characters", entry, line if cut_forms else None)


class _CharEmbedding(nn.Module, ABC):
    """An embedding of tokens by vectors that `compose` makes, one per distinct form."""

    def __init__(
        self, vocabs: Mapping[str, Vocab], feature: Name, size: int, max_characters: int, dropout: float
    ) -> None:
        super().__init__()
        self.spelled = CharacterTable(vocabs, feature, size, max_characters)
        self.dropout = Dropout(dropout)

    @abstractmethod
    def compose(self, characters: Ragged) -> Tensor:
        """Map packed rows of (characters, size) to the vectors (U, D) of U forms."""

    def forward(self, features: Mapping[str, Ragged]) -> Ragged:
        """Map ids of forms to rows of (length, D), in the same layout."""
        ids = features[self.spelled.feature]
        characters, form_of_token = self.spelled(ids)
        tokens = Ragged(F.embedding(form_of_token, self.compose(characters)), ids.rows, "packed")
        return self.dropout.apply_to(tokens.pad() if ids.layout == "padded" else tokens)


class CharConv(_CharEmbedding):
    """An embedding by convolutions over a word's characters, max pooling and optional highway layers (Kim et al. 2016).

    Args:
        widths: widths of the filters, in characters.
        filters: number of filters of each width.
        activation: relu or tanh, before the pooling.
    """

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: Name,
        size: Size,
        max_characters: PositiveInt,
        widths: Widths,
        filters: Size,
        activation: Literal["relu", "tanh"],
        highway: AddedLayers,
        dropout: Fraction,
    ) -> None:
        super().__init__(vocabs, feature, size, max_characters, dropout)
        self.convolutions = nn.ModuleList(Convolution(size, filters, width, causal=False) for width in widths)
        self.activation = nn.ReLU() if activation == "relu" else nn.Tanh()
        self.output_size = filters * len(widths)
        self.highway = nn.Sequential(*(Highway(self.output_size) for _ in range(highway)))

    def compose(self, characters: Ragged) -> Tensor:
        # Both activations are monotone, so pooling first gives the same result with fewer activations.
        largest = max_pool(convolve_parallel([*self.convolutions], characters, None))
        vectors: Tensor = self.highway(self.activation(largest))
        return vectors


class CharRnn(_CharEmbedding):
    """An embedding by the final states of a recurrent layer in both directions over characters (Lample et al. 2016)."""

    def __init__(
        self,
        *,
        vocabs: Mapping[str, Vocab],
        feature: Name,
        size: Size,
        max_characters: PositiveInt,
        cell: Cell,
        hidden: Size,
        dropout: Fraction,
    ) -> None:
        super().__init__(vocabs, feature, size, max_characters, dropout)
        self.forwards = Recurrence(cell, size, hidden, reverse=False)
        self.backwards = Recurrence(cell, size, hidden, reverse=True)
        self.output_size = 2 * hidden

    def compose(self, characters: Ragged) -> Tensor:
        (ahead, _), (back, _) = self.forwards(characters, None), self.backwards(characters, None)
        return torch.cat([last_pool(ahead), first_pool(back)], dim=-1)
