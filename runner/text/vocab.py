"""Vocabularies: from train alone, frozen, encoded by Arrow without a loop over tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.types import NonNegativeInt, PositiveInt

PAD, UNK, EOS = "<pad>", "<unk>", "<eos>"


@dataclass(frozen=True)
class Vocab:
    """Strings and their ids, which are their places in `tokens`.

    Attributes:
        tokens: distinct strings; `<pad>` has id 0 where there is one.
        unk: the id of strings that are not in `tokens`, or None where there can be none (labels).
        extra: how many tokens, the last ones, are of the data but not learned (`Feature.extend`): they can be looked up
            elsewhere, as embedding=vectors does in its file; to all else they are `<unk>`.
        alphabet: the characters that are learned, in the order of their code points, where tokens are composed of their
            characters (`runner.text.features.Characters`); else empty.
        counts: how often train has each of `tokens`, where they are labels or tags; else empty.
        merges: by which words are cut into `tokens` (`runner.text.bpe`); None where they are whole.
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
        """How many tokens are learned; ids from here on are of `extra` ones."""
        return len(self.tokens) - self.extra

    @cached_property
    def _values(self) -> pa.Array:
        return pa.array(self.tokens, pa.string())

    @cached_property
    def ids(self) -> dict[str, int]:
        return {token: place for place, token in enumerate(self.tokens)}

    def encode(self, strings: pa.Array) -> npt.NDArray[np.int32]:
        """(N,) ids; -1 for a string that is unknown where there is no `unk` (the caller says where it stands)."""
        places = pc.index_in(strings, value_set=self._values)
        missing = -1 if self.unk is None else self.unk
        ids: npt.NDArray[np.int32] = pc.fill_null(places, missing).to_numpy(zero_copy_only=False)
        return ids.astype(np.int32)  # a copy: Arrow's memory is read-only

    def decode(self, ids: Sequence[int] | npt.NDArray[np.integer]) -> list[str]:
        return [self.tokens[place] for place in ids]

    @classmethod
    def labels(cls, strings: pa.Array) -> Vocab:
        """Every distinct string, in alphabetical order, without `<pad>` or `<unk>`, and how often each occurs."""
        vocab = cls(tuple(sorted(pc.unique(strings).to_pylist())), unk=None)
        return vocab.counted(vocab.encode(strings))

    def counted(self, ids: npt.NDArray[np.integer]) -> Vocab:
        """With the `counts` of ids (N,)."""
        return replace(self, counts=tuple(np.bincount(ids, minlength=len(self)).tolist()))

    @classmethod
    def words(cls, strings: pa.Array, min_count: int, max_size: int | None, specials: Sequence[str] = ()) -> Vocab:
        """`<pad>`, `<unk>`, `specials`, then strings by falling count (ties in alphabetical order)."""
        counted = pc.value_counts(strings)
        table = pa.table({"token": counted.field("values"), "count": counted.field("counts")})
        table = table.filter(pc.greater_equal(table["count"], min_count))
        table = table.sort_by([("count", "descending"), ("token", "ascending")])
        first = dict.fromkeys((PAD, UNK, *specials))
        found = [token for token in table["token"].to_pylist() if token not in first][:max_size]
        return cls((*first, *found), unk=1)

    def extended(self, strings: Sequence[pa.Array]) -> Vocab:
        """With every other string that occurs, in alphabetical order, as `extra`; ids stay what they are."""
        found = pa.chunked_array([pc.unique(one) for one in strings], pa.string()).unique()
        new = found.filter(pc.invert(pc.is_in(found, value_set=self._values)))
        return replace(self, tokens=(*self.tokens, *sorted(new.to_pylist())), extra=self.extra + len(new))

    def as_plain(self) -> dict[str, Any]:
        """For JSON; `of_plain` takes it back."""
        lists = {"tokens": list(self.tokens), "counts": list(self.counts)}
        merges = {} if self.merges is None else {"merges": list(self.merges)}
        return lists | {"unk": self.unk, "extra": self.extra, "alphabet": self.alphabet} | merges

    @classmethod
    def of_plain(cls, plain: Mapping[str, Any]) -> Vocab:
        merges = tuple(plain["merges"]) if "merges" in plain else None
        counts = tuple(plain["counts"])
        return cls(tuple(plain["tokens"]), plain["unk"], plain["extra"], plain["alphabet"], counts, merges)


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One integer column for each token: which column of the corpus, and how its vocabulary is made.

    Args:
        column: name of a list<string> column of the corpus.
        lowercase: map to lower case first.
        digits_to_zero: and every decimal digit to 0.
        min_count: strings seen less often in train become `<unk>`.
        max_size: at most so many strings, besides the special ones (null: all).
        extend: give ids to all other strings of the data too, those of valid and test among them, so that pretrained
            vectors can be looked up for them. Nothing is learned from them: it is what looking words up in the file
            when predicting comes to. To embeddings without a file they are `<unk>`.
    """

    column: str
    lowercase: bool
    digits_to_zero: bool
    min_count: PositiveInt
    max_size: NonNegativeInt | None
    extend: bool

    def strings(self, table: pa.Table) -> pa.Array:
        """(N,) the normalised strings of all rows, one after another."""
        return normalised(table, self.column, self.lowercase, self.digits_to_zero)

    def vocab(self, train: pa.Table) -> Vocab:
        return Vocab.words(self.strings(train), self.min_count, self.max_size, specials=(EOS,))


def normalised(table: pa.Table, column: str, lowercase: bool, digits_to_zero: bool) -> pa.Array:
    """(N,) the strings of all rows of a list<string> column, one after another, mapped as asked."""
    flat = pc.list_flatten(table[column].combine_chunks())
    flat = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
    flat = pc.utf8_lower(flat) if lowercase else flat
    return pc.replace_substring_regex(flat, r"\p{Nd}", "0") if digits_to_zero else flat
