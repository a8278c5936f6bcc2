"""Vocabularies: made only from the training set, immutable, encoded by Arrow without a loop over tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NotRequired

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import TypedDict  # pydantic cannot check that of `typing` before Python 3.12

from runner.common.errors import no_feature
from runner.common.types import NonNegativeInt, PositiveInt, Text

PAD, UNK, EOS = "<pad>", "<unk>", "<eos>"


class PlainVocab(TypedDict):
    """The JSON form of a `Vocab`; `merges` is left out if words are not split."""

    tokens: list[str]
    counts: list[int]
    unk: int | None
    extra: int
    alphabet: str
    merges: NotRequired[list[str]]


@dataclass(frozen=True)
class Vocab:
    """A vocabulary of strings; the id of a string is its index in `tokens`.

    Attributes:
        tokens: distinct strings; `<pad>`, if present, has id 0.
        unk: id of strings that are not in `tokens`, or None if there can be none (labels).
        extra: number of tokens at the end that are in the data but not learned (`Feature.extend`). They can be looked
            up elsewhere, as embedding=vectors does in its file; everything else treats them as `<unk>`.
        alphabet: learned characters, sorted by code point, if tokens are composed of their characters
            (`runner.text.features.Characters`); else empty.
        counts: count of each token in the training set, for labels and tags; else empty.
        merges: the merges that split words into `tokens` (`runner.text.bpe`); None if words are not split.
    """

    tokens: tuple[str, ...]
    unk: int | None
    extra: int = 0
    alphabet: str = ""
    counts: tuple[int, ...] = ()
    merges: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def known(self) -> int:
        """The number of learned tokens; ids from here on are of `extra` tokens."""
        return len(self.tokens) - self.extra

    @property
    def learned(self) -> Vocab:
        """The vocabulary without its `extra` tokens."""
        return replace(self, tokens=self.tokens[: self.known], extra=0) if self.extra else self

    @cached_property
    def _values(self) -> pa.Array:
        return pa.array(self.tokens, pa.string())

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each string."""
        return {token: place for place, token in enumerate(self.tokens)}

    def encode(self, strings: pa.Array) -> npt.NDArray[np.int32]:
        """Return the ids (N,) of strings; -1 for an unknown string if there is no `unk` (the caller reports it)."""
        places = pc.index_in(strings, value_set=self._values)
        missing = -1 if self.unk is None else self.unk
        ids: npt.NDArray[np.int32] = pc.fill_null(places, missing).to_numpy(zero_copy_only=False)
        return ids.astype(np.int32)  # a copy: Arrow's memory is read-only

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """Return the strings of ids."""
        return [self.tokens[place] for place in ids]

    @classmethod
    def labels(cls, strings: pa.Array) -> Vocab:
        """Return a vocabulary of all distinct strings, sorted, with counts, without `<pad>` and `<unk>`."""
        vocab = cls(tuple(sorted(pc.unique(strings).to_pylist())), unk=None)
        return vocab.with_counts(vocab.encode(strings))

    def with_counts(self, ids: npt.NDArray[np.integer]) -> Vocab:
        """Return a copy with the `counts` of ids (N,)."""
        return replace(self, counts=tuple(np.bincount(ids, minlength=len(self)).tolist()))

    @classmethod
    def words(cls, strings: pa.Array, min_count: int, max_size: int | None, specials: Sequence[str] = ()) -> Vocab:
        """Return a vocabulary of `<pad>`, `<unk>`, `specials`, then strings by decreasing count (ties sorted)."""
        counted = pc.value_counts(strings)
        table = pa.table({"token": counted.field("values"), "count": counted.field("counts")})
        table = table.filter(pc.greater_equal(table["count"], min_count))
        table = table.sort_by([("count", "descending"), ("token", "ascending")])
        first = dict.fromkeys((PAD, UNK, *specials))
        tokens = [token for token in table["token"].to_pylist() if token not in first][:max_size]
        return cls((*first, *tokens), unk=1)

    def extend(self, strings: Sequence[pa.Array]) -> Vocab:
        """Return a copy with all new strings, sorted, appended as `extra`; existing ids do not change."""
        distinct = pa.chunked_array([pc.unique(column) for column in strings], pa.string()).unique()
        new = distinct.filter(pc.invert(pc.is_in(distinct, value_set=self._values)))
        return replace(self, tokens=(*self.tokens, *sorted(new.to_pylist())), extra=self.extra + len(new))

    def to_plain(self) -> PlainVocab:
        """Return a JSON-serialisable mapping, from which `from_plain` restores the vocabulary."""
        plain = PlainVocab(
            tokens=[*self.tokens], counts=[*self.counts], unk=self.unk, extra=self.extra, alphabet=self.alphabet
        )
        if self.merges is not None:
            plain["merges"] = [*self.merges]
        return plain

    @classmethod
    def from_plain(cls, plain: PlainVocab) -> Vocab:
        """Return the vocabulary that `to_plain` was called on."""
        merges = tuple(plain["merges"]) if "merges" in plain else None
        counts = tuple(plain["counts"])
        return cls(tuple(plain["tokens"]), plain["unk"], plain["extra"], plain["alphabet"], counts, merges)


def vocab_of(vocabs: Mapping[str, Vocab], feature: str) -> Vocab:
    """Return the vocabulary of a feature to embed; raise a HydromelError if there is no feature of that name."""
    if feature not in vocabs or feature == "target":
        raise no_feature(feature, vocabs)
    return vocabs[feature]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """A feature of the token strings themselves, as one integer column.

    Args:
        digits_to_zero: replace every decimal digit with 0.
        min_count: strings seen less often in the training set become `<unk>`.
        max_size: maximum number of strings, not counting the special ones (null: no limit).
        extend: also give ids to all other strings of the data, including valid and test, so that pretrained vectors
            can be looked up for them. Nothing is learned from these strings: the effect is the same as looking up new
            words in the file at prediction time. Embeddings without a file treat them as `<unk>`.
    """

    column: Text
    lowercase: bool
    digits_to_zero: bool
    min_count: PositiveInt
    max_size: NonNegativeInt | None
    extend: bool

    def strings(self, table: pa.Table) -> pa.Array:
        """Return the normalised strings (N,) of all rows, concatenated."""
        return normalised_strings(table, self.column, self.lowercase, self.digits_to_zero)

    def vocab(self, train: pa.Table) -> Vocab:
        return Vocab.words(self.strings(train), self.min_count, self.max_size, specials=(EOS,))


def normalised_strings(table: pa.Table, column: str, lowercase: bool, digits_to_zero: bool) -> pa.Array:
    """Return the strings (N,) of all rows of a list<string> column, concatenated, normalised as requested."""
    flat = pc.list_flatten(table[column].combine_chunks())
    flat = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
    flat = pc.utf8_lower(flat) if lowercase else flat
    return pc.replace_substring_regex(flat, r"\p{Nd}", "0") if digits_to_zero else flat
