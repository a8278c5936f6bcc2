"""Features computed from a token's string: its characters, pieces, casing, prefix or suffix; and new words for a model.

`runner.text.vocab.Feature` is the string itself. Each feature is one integer column, with a vocabulary made only from
the training set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from runner.common.types import NonNegativeInt, PositiveInt, Text, UnicodeForm
from runner.text.bpe import all_pieces, learn_merges, pieces_of
from runner.text.characters import alphabet_of
from runner.text.vocab import SPECIALS, Vocab, normalised_strings


class TokenFeature(Protocol):
    """The definition of one integer column; its `repr` contains all options."""

    @property
    def column(self) -> str:
        """The list<string> column of the corpus that it is computed from."""

    @property
    def extend(self) -> bool:
        """True if strings that are not in the training set get separate ids (`Vocab.extra`)."""

    def strings(self, table: pa.Table) -> pa.Array:
        """Return one string per token (N,), for all rows, concatenated."""

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        """Return the vocabulary of the training set, which comes in blocks and may be iterated over several times."""


@runtime_checkable
class BringsVocabulary(Protocol):
    """A feature whose vocabulary is in files of its own, such as those of a pretrained model, whatever train holds."""

    def own_vocab(self) -> Vocab:
        """Return the vocabulary of the files, which a finished run does not need again."""


@dataclass(frozen=True, kw_only=True)
class Characters:
    """A feature for embeddings that compose each distinct form of its characters (`runner.embeddings.char`).

    An id of this feature is that of a form; the form's characters belong to the vocabulary, and `Vocab.alphabet` lists
    those that are learned. So a batch composes each form once, however often it occurs.

    Characters seen less often than `min_count` in the distinct forms of the training set become one unknown character.
    """

    column: Text
    lowercase: bool
    digits_to_zero: bool
    min_count: PositiveInt
    unicode: UnicodeForm = "NFC"
    extend: ClassVar[bool] = True

    def strings(self, table: pa.Table) -> pa.Array:
        return normalised_strings(table, self.column, self.unicode, self.lowercase, self.digits_to_zero)

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        forms = Vocab.words(map(self.strings, train), min_count=1, max_size=None, unicode=self.unicode)
        return replace(forms, alphabet=alphabet_of(forms.strings, self.min_count))


@dataclass(frozen=True, kw_only=True)
class Forms:
    """A feature of word forms as they are written, which an embedding cuts into pieces by its own tokenizer.

    It has every distinct form, so that no word is unknown (`runner.embeddings.pretrained_transformer`).
    """

    column: Text
    unicode: UnicodeForm = "NFC"
    extend: ClassVar[bool] = True

    def strings(self, table: pa.Table) -> pa.Array:
        return normalised_strings(table, self.column, self.unicode, lowercase=False, digits_to_zero=False)

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        return Vocab.words(map(self.strings, train), min_count=1, max_size=None, unicode=self.unicode)


@dataclass(frozen=True, kw_only=True)
class Bpe:
    """A feature of subword pieces, by byte pair encoding learned from the training set (`runner.text.bpe`).

    A word becomes one or more tokens, none of which is unknown.

    Args:
        merges: number of merges to learn; the vocabulary has at most this number of strings plus the 256 bytes.
        min_count: pairs of pieces seen less often in the training set are not merged.
    """

    column: Text
    merges: NonNegativeInt
    min_count: PositiveInt
    unicode: UnicodeForm = "NFC"
    extend: ClassVar[bool] = False

    def strings(self, table: pa.Table) -> pa.Array:
        """Return the words (N,), which `runner.data.numericalize.columns_of` splits by the vocabulary's merges."""
        return normalised_strings(table, self.column, self.unicode, lowercase=False, digits_to_zero=False)

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        """Return the pieces by decreasing count in the training set, then those that do not occur in it."""
        merges = learn_merges(map(self.strings, train), self.merges, self.min_count)
        pieces = (pieces_of(self.strings(block), merges)[1] for block in train)
        seen = Vocab.words(pieces, min_count=1, max_size=None)
        return Vocab(
            tuple(dict.fromkeys((*seen.strings, *all_pieces(merges)))), SPECIALS, unicode=self.unicode, merges=merges
        )


# Patterns (RE2) of the kinds of casing. The first that matches applies; if none does, the casing is `mixed`.
_CASES = {
    "digits": r"^\p{Nd}+$",
    "punctuation": r"^[^\p{L}\p{N}]*$",
    "has_digit": r"\p{N}",
    "caseless": r"^[^\p{Lu}\p{Lt}\p{Ll}]*$",
    "lower": r"^[^\p{Lu}\p{Lt}]*$",
    "title": r"^[^\p{L}]*[\p{Lu}\p{Lt}][^\p{Lu}\p{Lt}]*$",
    "upper": r"^[^\p{Ll}]*$",
}


@dataclass(frozen=True, kw_only=True)
class Casing:
    """A feature of a token's casing.

    It is `digits` (only digits), `punctuation` (neither letters nor digits), `has_digit`, or for letters `caseless`,
    `lower`, `title` (only the first is upper case), `upper` or `mixed`.
    """

    column: Text
    unicode: UnicodeForm = "NFC"
    extend: ClassVar[bool] = False

    def strings(self, table: pa.Table) -> pa.Array:
        return casing(normalised_strings(table, self.column, self.unicode, lowercase=False, digits_to_zero=False))

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        return Vocab((*_CASES, "mixed"), SPECIALS)


@dataclass(frozen=True, kw_only=True)
class Affix:
    """A feature of the first or last `length` characters of each token, or the whole token if it is shorter.

    Other options are as for `runner.text.vocab.Feature`.
    """

    column: Text
    end: Literal["prefix", "suffix"]
    length: PositiveInt
    lowercase: bool
    digits_to_zero: bool
    min_count: PositiveInt
    max_size: NonNegativeInt | None
    unicode: UnicodeForm = "NFC"
    extend: ClassVar[bool] = False

    def strings(self, table: pa.Table) -> pa.Array:
        whole = normalised_strings(table, self.column, self.unicode, self.lowercase, self.digits_to_zero)
        if self.end == "prefix":
            return pc.utf8_slice_codeunits(whole, 0, self.length)
        return pc.utf8_slice_codeunits(whole, -self.length, None)

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        return Vocab.words(map(self.strings, train), self.min_count, self.max_size, self.unicode)


def casing(strings: pa.Array) -> pa.Array:
    """Return the casing (N,) of each string; see `Casing`. An empty string is punctuation."""
    matches = [pc.match_substring_regex(strings, pattern) for pattern in _CASES.values()]
    return pc.case_when(pc.make_struct(*matches), *_CASES, "mixed")


@runtime_checkable
class ExtendsVocabulary(Protocol):
    """A module that can represent new words better than by `<unk>`: by their characters, or by vectors in a file."""

    def extend_vocabulary(self, vocabs: Mapping[str, Vocab]) -> None:
        """Use vocabularies that append new words to the original ones, replacing those of an earlier call."""


def extend_vocabulary(
    model: nn.Module, vocabs: Mapping[str, Vocab], features: Mapping[str, TokenFeature], table: pa.Table
) -> dict[str, Vocab]:
    """Prepare a model for new text: give its new words ids, spell them, and look them up in vector files.

    For text in chunks, pass the training vocabularies each time: the words of the previous chunk are forgotten, so
    memory stays that of one chunk. Nothing is trained, and known words do not change. Load the checkpoint before, and
    do not save the model afterwards.

    Args:
        vocabs: the training vocabularies (`Data.vocabs`).
        features: the model's features; those with `extend` get ids for all words, as in training.
        table: the new text, with the features' columns.

    Returns:
        The vocabularies with which to numericalise `table` (`runner.data.numericalize.columns_of`).
    """
    new = {name: [feature.strings(table)] for name, feature in features.items() if feature.extend}
    extended = {**vocabs, **{name: vocabs[name].extend(strings) for name, strings in new.items()}}
    for module in model.modules():
        if isinstance(module, ExtendsVocabulary):
            module.extend_vocabulary(extended)
    return extended
