"""Features that are computed from a token's string: its characters, casing, first or last characters, its pieces.

`runner.text.vocab.Feature` is the string itself. All make one integer column, with a vocabulary from train alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.types import NonNegativeInt, PositiveInt
from runner.text.bpe import all_pieces, learn_merges, pieces_of
from runner.text.characters import alphabet_of
from runner.text.vocab import EOS, PAD, UNK, Vocab, normalised


class TokenFeature(Protocol):
    """How one integer column is made; its `repr` names all of its options."""

    @property
    def column(self) -> str:
        """Which list<string> column of the corpus it is made of."""
        ...

    @property
    def extend(self) -> bool:
        """Whether strings that train lacks get ids of their own (`Vocab.extra`)."""
        ...

    def strings(self, table: pa.Table) -> pa.Array:
        """(N,) one string a token, for all rows one after another."""
        ...

    def vocab(self, train: pa.Table) -> Vocab: ...


@dataclass(frozen=True, kw_only=True)
class Characters:
    """Every distinct form of the data, to be composed of its characters (`runner.embeddings.char`).

    Characters belong to the vocabulary of forms, not to the tokens: an id of this feature is a form's, and `Vocab` says
    by `alphabet` of what forms are spelt. So a batch composes each of its forms once, however often it occurs.

    Args:
        column: name of a list<string> column of the corpus.
        lowercase: map to lower case first.
        digits_to_zero: and every decimal digit to 0.
        min_count: characters seen less often in the distinct forms of train are one, unknown, character.
    """

    column: str
    lowercase: bool
    digits_to_zero: bool
    min_count: PositiveInt

    @property
    def extend(self) -> bool:
        return True

    def strings(self, table: pa.Table) -> pa.Array:
        return normalised(table, self.column, self.lowercase, self.digits_to_zero)

    def vocab(self, train: pa.Table) -> Vocab:
        forms = Vocab.words(self.strings(train), min_count=1, max_size=None, specials=(EOS,))
        return Vocab(forms.tokens, forms.unk, alphabet=alphabet_of(forms.tokens, self.min_count))


@dataclass(frozen=True, kw_only=True)
class Bpe:
    """Pieces of words, by byte pair encoding learned from train (`runner.text.bpe`): several tokens a word, none
    unknown.

    Args:
        column: name of a list<string> column of the corpus, of words.
        merges: how many are learned; there may be as many strings more than the 256 bytes.
        min_count: pairs of pieces seen less often in train are not merged.
    """

    column: str
    merges: NonNegativeInt
    min_count: PositiveInt

    @property
    def extend(self) -> bool:
        return False

    def strings(self, table: pa.Table) -> pa.Array:
        """(N,) the words, which `runner.data.numericalize.columns_of` cuts by the vocabulary's merges."""
        return normalised(table, self.column, lowercase=False, digits_to_zero=False)

    def vocab(self, train: pa.Table) -> Vocab:
        """Pieces by falling count in train, then those that only other texts have."""
        words, specials = self.strings(train), (PAD, UNK, EOS)
        merges = learn_merges(words, self.merges, self.min_count, forbidden=specials)
        seen = Vocab.words(pieces_of(words, merges)[1], min_count=1, max_size=None, specials=(EOS,))
        return Vocab(tuple(dict.fromkeys((*seen.tokens, *all_pieces(merges)))), unk=1, merges=merges)


# what each case looks like (RE2); of several, the first holds, and where none does, letters are `mixed`
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
    """How a token is written: `digits` alone, `punctuation` (neither letter nor digit), `has_digit`, or letters, which
    are `caseless`, `lower`, `title` (the first alone is upper case), `upper` or `mixed`.

    Args:
        column: name of a list<string> column of the corpus.
    """

    column: str

    @property
    def extend(self) -> bool:
        return False

    def strings(self, table: pa.Table) -> pa.Array:
        return casing(normalised(table, self.column, lowercase=False, digits_to_zero=False))

    def vocab(self, train: pa.Table) -> Vocab:
        return Vocab((PAD, UNK, EOS, *_CASES, "mixed"), unk=1)


@dataclass(frozen=True, kw_only=True)
class Affix:
    """The first or the last characters of each token; the whole token, where it is shorter.

    Args:
        column: name of a list<string> column of the corpus.
        end: prefix or suffix.
        length: characters of it.
        lowercase: map to lower case first.
        digits_to_zero: and every decimal digit to 0.
        min_count: affixes seen less often in train become `<unk>`.
        max_size: at most so many affixes (null: all).
    """

    column: str
    end: Literal["prefix", "suffix"]
    length: PositiveInt
    lowercase: bool
    digits_to_zero: bool
    min_count: PositiveInt
    max_size: NonNegativeInt | None

    @property
    def extend(self) -> bool:
        return False

    def strings(self, table: pa.Table) -> pa.Array:
        whole = normalised(table, self.column, self.lowercase, self.digits_to_zero)
        if self.end == "prefix":
            return pc.utf8_slice_codeunits(whole, 0, self.length)
        return pc.utf8_slice_codeunits(whole, -self.length, None)

    def vocab(self, train: pa.Table) -> Vocab:
        return Vocab.words(self.strings(train), self.min_count, self.max_size, specials=(EOS,))


def casing(strings: pa.Array) -> pa.Array:
    """(N,) how each string is written; see `Casing`. An empty one is punctuation."""
    matches = [pc.match_substring_regex(strings, pattern) for pattern in _CASES.values()]
    return pc.case_when(pc.make_struct(*matches), *_CASES, "mixed")
