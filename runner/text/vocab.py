"""Vocabularies: made only from the training set, immutable, encoded by Arrow without a loop over tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NotRequired

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from typing_extensions import TypedDict  # pydantic cannot check that of `typing` before Python 3.12

from runner.common.errors import no_feature
from runner.common.types import NonNegativeInt, PositiveInt, Text, UnicodeForm
from runner.text.normal_forms import normal_form, normal_forms

# Names of the special ids: padding, unknown strings, the end of a line. A text that contains `<pad>` contains that
# string, which is a word like any other and has an id of its own.
PAD, UNK, EOS = "<pad>", "<unk>", "<eos>"
SPECIALS = (PAD, UNK, EOS)
MOST_COUNTED = 2**23  # distinct strings that are counted exactly, where rare ones are not needed
MERGED_TOGETHER = 2**20  # counts of new strings that wait for being added to those before


class PlainVocab(TypedDict):
    """The JSON form of a `Vocab`; `merges` and `tokenizer` are left out if they do not split words."""

    specials: list[str]
    strings: list[str]
    counts: list[int]
    extra: int
    alphabet: str
    unicode: UnicodeForm
    merges: NotRequired[list[str]]
    tokenizer: NotRequired[str]
    forgotten: NotRequired[int]


@dataclass(frozen=True)
class Vocab:
    """A vocabulary: special ids first, then an id for each string. Special ids stand for no string of a text.

    Attributes:
        strings: distinct strings; the id of a string is its index plus the number of special ids.
        specials: names of the special ids: `SPECIALS` for features, none for labels. `<pad>`, if present, has id 0.
        extra: number of strings at the end that are in the data but not learned. Words (`Feature.extend`) can be looked
            up elsewhere, as embedding=vectors does in its file; everything else treats them as unknown. Labels of valid
            and test that the training set lacks cannot be predicted.
        alphabet: learned characters, sorted by code point, if strings are composed of their characters
            (`runner.text.features.Characters`); else empty.
        counts: count of each id in the training set, for labels and tags; else empty.
        unicode: normal form of the strings, in which they are looked up in vector files too; `none` for labels.
        merges: the merges that split words into `strings` (`runner.text.bpe`); None if they do not.
        tokenizer: the tokenizer of a pretrained model that splits text into `strings`, as its file `tokenizer.json`;
            None if it does not. See `runner.text.pieces` for both.
        forgotten: occurrences of a string that may not have been counted, at most (`count_strings`).
    """

    strings: tuple[str, ...]
    specials: tuple[str, ...] = ()
    extra: int = 0
    alphabet: str = ""
    counts: tuple[int, ...] = ()
    unicode: UnicodeForm = "none"
    merges: tuple[str, ...] | None = None
    tokenizer: str | None = None
    forgotten: int = 0

    def __len__(self) -> int:
        return len(self.specials) + len(self.strings)

    @property
    def known(self) -> int:
        """The number of learned ids; ids from here on are of `extra` strings."""
        return len(self) - self.extra

    @property
    def learned(self) -> Vocab:
        """The vocabulary without its `extra` strings."""
        return replace(self, strings=self.strings[: -self.extra], extra=0) if self.extra else self

    @property
    def pad(self) -> int:
        """The id of padding; a ValueError if there is none."""
        return self.specials.index(PAD)

    @property
    def unk(self) -> int | None:
        """The id of strings that are not in `strings`, or None if there can be none (labels)."""
        return self.specials.index(UNK) if UNK in self.specials else None

    @property
    def eos(self) -> int:
        """The id of the end of a line; a ValueError if there is none."""
        return self.specials.index(EOS)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """(V,) the name of each id, to be shown: a string may have the name of a special id."""
        return (*self.specials, *self.strings)

    @cached_property
    def _values(self) -> pa.Array:
        return pa.array(self.strings, pa.string())

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each string."""
        return {string: place for place, string in enumerate(self.strings, start=len(self.specials))}

    def encode(self, strings: pa.Array) -> npt.NDArray[np.int32]:
        """Return the ids (N,) of strings; null is unknown.

        The id of an unknown string is -1 if there is no `unk` (the caller reports it).
        """
        places: npt.NDArray[np.int64] = pc.fill_null(pc.index_in(strings, value_set=self._values), -1).to_numpy(
            zero_copy_only=False
        )
        missing = -1 if self.unk is None else self.unk
        return np.where(places < 0, missing, places + len(self.specials)).astype(np.int32)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        """Return the names of ids."""
        return [self.tokens[place] for place in ids]

    @classmethod
    def labels(cls, strings: Iterable[pa.Array]) -> Vocab:
        """Return a vocabulary of all distinct strings of some arrays, sorted, with counts, without special ids."""
        counted = count_strings(strings)[0].sort_by("string")
        return cls(tuple(counted["string"].to_pylist()), counts=tuple(counted["count"].to_pylist()))

    def with_counts(self, ids: Iterable[npt.NDArray[np.integer]]) -> Vocab:
        """Return a copy with the `counts` of the ids of some arrays."""
        counts = np.zeros(len(self), dtype=np.int64)
        for part in ids:
            counts += np.bincount(part, minlength=len(self))
        return replace(self, counts=tuple(counts.tolist()))

    @classmethod
    def words(
        cls, strings: Iterable[pa.Array], min_count: int, max_size: int | None, unicode: UnicodeForm = "none"
    ) -> Vocab:
        """Return a vocabulary of the strings of some arrays by decreasing count (ties sorted), after the special ids.

        Nulls are left out. `unicode` is the normal form that the strings are in.
        """
        table, forgotten = count_strings(strings, may_prune=min_count > 1 or max_size is not None)
        table = table.filter(pc.greater_equal(table["count"], min_count))
        table = table.sort_by([("count", "descending"), ("string", "ascending")])
        return cls(tuple(table["string"].to_pylist()[:max_size]), SPECIALS, unicode=unicode, forgotten=forgotten)

    def extend(self, strings: Iterable[pa.Array]) -> Vocab:
        """Return a copy with all new strings, sorted, appended as `extra`; existing ids do not change."""
        distinct = count_strings(strings)[0]["string"]
        new = distinct.filter(pc.invert(pc.is_in(distinct, value_set=self._values)))
        return self.with_extra(sorted(new.to_pylist()))

    def with_extra(self, strings: Sequence[str]) -> Vocab:
        """Return a copy with new strings appended as `extra`; existing ids do not change."""
        return replace(self, strings=(*self.strings, *strings), extra=self.extra + len(strings))

    def to_plain(self) -> PlainVocab:
        """Return a JSON-serialisable mapping, from which `from_plain` restores the vocabulary."""
        plain = PlainVocab(
            specials=[*self.specials],
            strings=[*self.strings],
            counts=[*self.counts],
            extra=self.extra,
            alphabet=self.alphabet,
            unicode=self.unicode,
        )
        if self.merges is not None:
            plain["merges"] = [*self.merges]
        if self.tokenizer is not None:
            plain["tokenizer"] = self.tokenizer
        if self.forgotten:
            plain["forgotten"] = self.forgotten
        return plain

    @classmethod
    def from_plain(cls, plain: PlainVocab) -> Vocab:
        """Return the vocabulary that `to_plain` was called on."""
        merges = tuple(plain["merges"]) if "merges" in plain else None
        counts, specials = tuple(plain["counts"]), tuple(plain["specials"])
        unlearned, alphabet = plain["extra"], plain["alphabet"]
        return cls(
            strings=tuple(plain["strings"]),
            specials=specials,
            extra=unlearned,
            alphabet=alphabet,
            counts=counts,
            unicode=plain["unicode"],
            merges=merges,
            tokenizer=plain.get("tokenizer"),
            forgotten=plain.get("forgotten", 0),
        )


def count_strings(arrays: Iterable[pa.Array], may_prune: bool = False) -> tuple[pa.Table, int]:
    """Return the distinct strings of some arrays, without nulls, in the column `string`, and their `count` (int64).

    With `may_prune`, memory is bounded: if there are more than `MOST_COUNTED`, the rarest ones so far are forgotten,
    and if they occur again they are counted from there (lossy counting, Manku and Motwani 2002). The number returned
    says by how much a count may then be too small. A string that occurs more often than that is never missing.
    """
    counted, pending, n_pending, forgotten = _counts(pa.array([], pa.string())), list[pa.Table](), 0, 0
    for strings in arrays:
        pending.append(_counts(strings.drop_null()))
        n_pending += pending[-1].num_rows
        if n_pending > max(MERGED_TOGETHER, counted.num_rows):
            counted, pending, n_pending = _merged([counted, *pending]), [], 0
            while may_prune and counted.num_rows > MOST_COUNTED:
                least = pc.min(counted["count"]).as_py()
                forgotten += least
                counted = counted.filter(pc.greater(counted["count"], least))
    return _merged([counted, *pending]), forgotten


def _counts(strings: pa.Array) -> pa.Table:
    counted = pc.value_counts(strings)
    return pa.table({"string": counted.field("values"), "count": counted.field("counts").cast(pa.int64())})


def _merged(parts: Sequence[pa.Table]) -> pa.Table:
    parts = [part for part in parts if part.num_rows] or [parts[0]]
    if len(parts) == 1:
        return parts[0]
    sums = pa.concat_tables(parts).group_by("string", use_threads=False).aggregate([("count", "sum")])
    return sums.rename_columns({"string": "string", "count_sum": "count"}).combine_chunks()


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
        max_size: maximum number of strings (null: no limit).
        extend: also give ids to all other strings of the data, including valid and test, so that pretrained vectors
            can be looked up for them. Nothing is learned from these strings: the effect is the same as looking up new
            words in the file at prediction time. Embeddings without a file treat them as `<unk>`.
        unk_string: a word by which the data itself marks unknown words, such as the `<unk>` of WikiText; it gets the id
            of `<unk>` (null: no word does).
        unicode: normal form of the strings (`runner.text.normal_forms`).
    """

    column: Text
    lowercase: bool
    digits_to_zero: bool
    min_count: PositiveInt
    max_size: NonNegativeInt | None
    extend: bool
    unk_string: Text | None = None
    unicode: UnicodeForm = "NFC"

    def strings(self, table: pa.Table) -> pa.Array:
        """Return the normalised strings (N,) of all rows, concatenated; null for the `unk_string`."""
        strings = normalised_strings(table, self.column, self.unicode, self.lowercase, self.digits_to_zero)
        if self.unk_string is None:
            return strings
        marker = normal_form(self.unk_string, self.unicode, self.lowercase)
        return pc.if_else(pc.equal(strings, marker), pa.scalar(None, pa.string()), strings)

    def vocab(self, train: Iterable[pa.Table]) -> Vocab:
        return Vocab.words(map(self.strings, train), self.min_count, self.max_size, self.unicode)


def normalised_strings(
    table: pa.Table, column: str, unicode: UnicodeForm, lowercase: bool, digits_to_zero: bool
) -> pa.Array:
    """Return the strings (N,) of all rows of a list<string> column, concatenated, normalised as requested."""
    flat = pc.list_flatten(table[column].combine_chunks())
    flat = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
    flat = normal_forms(flat, unicode, lowercase)
    return pc.replace_substring_regex(flat, r"\p{Nd}", "0") if digits_to_zero else flat
