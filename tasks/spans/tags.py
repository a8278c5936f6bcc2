"""Spans encoded as tags: finding illegal tags, and decoding tags to spans. Numpy over flat ids, no loops.

A malformed tag, one that has no letter of a scheme (`tasks.spans.table`), is treated as `O`.

Shapes: B rows, N tokens in total, K spans.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.common.arrays import BoolArray, IntArray
from tasks.spans.table import (
    BEGIN,
    END,
    FIRST,
    INSIDE,
    LAST,
    MALFORMED,
    ONLY,
    OUTSIDE,
    ROLES,
    SCHEMES,
    Mode,
    Scheme,
    as_scheme,
)

SmallIntArray = npt.NDArray[np.int8]
SpanArrays = tuple[IntArray, IntArray, IntArray]  # starts, ends (exclusive), types: (K,) each
UNTYPED = "_"  # name that tables give the type of tags without types, as in seqeval
_LETTER = f"(?P<letter>[{''.join(ROLES)}])"
_PREFIXED = re.compile(f"{_LETTER}(?:-(?P<type>.+))?", re.DOTALL)
_SUFFIXED = re.compile(f"(?:(?P<type>.+)-)?{_LETTER}", re.DOTALL)


@dataclass(frozen=True)
class SpanTags:
    """A vocabulary of C tags, parsed into roles and types."""

    prefix: SmallIntArray  # (C,) OUTSIDE, BEGIN, INSIDE, END, SINGLE or MALFORMED
    kind: IntArray  # (C,) index into `types`, or -1 for tags that belong to no span
    types: tuple[str, ...]  # names of the span types, in the order of the tags; one empty name: tags without types
    letters: tuple[str, ...]  # (C,) letters of tags that belong to a span; empty for others

    @classmethod
    def of(cls, tags: Sequence[str], scheme: Scheme) -> SpanTags:
        """Parse tags with the letters of any scheme, which stand before or after the type as `scheme` has it.

        A letter alone is a tag of a span if no tag has a type.
        """
        form = _SUFFIXED if SCHEMES[scheme].suffixed else _PREFIXED
        found = [form.fullmatch(tag) for tag in tags]
        typed = any(match is not None and match["type"] is not None for match in found)
        matches = [match if match is not None and (match["type"] is not None) == typed else None for match in found]
        types = tuple(dict.fromkeys(match["type"] or "" for match in matches if match))
        kind = [types.index(match["type"] or "") if match else -1 for match in matches]
        letters = tuple(match["letter"] if match else "" for match in matches)
        plain = [OUTSIDE if tag == "O" else MALFORMED for tag in tags]
        prefix = [ROLES.get(letter, other) for letter, other in zip(letters, plain, strict=True)]
        return cls(np.array(prefix, dtype=np.int8), np.array(kind, dtype=np.int64), types, letters)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the types in tables."""
        return tuple(name or UNTYPED for name in self.types)

    def within(self, scheme: Scheme) -> SpanTags:
        """Return a copy in which tags with letters that `scheme` does not use are MALFORMED."""
        foreign = np.array([letter not in SCHEMES[scheme].used for letter in self.letters], dtype=np.bool_)
        return replace(self, prefix=np.where(foreign, MALFORMED, self.prefix).astype(np.int8))


def illegal_positions(tags: pa.StringArray, offsets: IntArray, scheme: str) -> IntArray:
    """Return the sorted flat positions of illegal tags, from the tags (N,) of rows that start at `offsets` (B+1,).

    Illegal are malformed tags, those with letters of other schemes, and those that cannot follow the tag before them:
    in IOB2, for example, an I that follows neither B nor I of its type. So is a last tag that leaves its span open.

    Raises:
        HydromelError: an unknown scheme.
    """
    known = as_scheme(scheme)
    # Parse each distinct tag once, then look the results up for all N tokens.
    encoded = tags.fill_null("").dictionary_encode()
    parsed = SpanTags.of(encoded.dictionary.to_pylist(), known).within(known)
    ids = encoded.indices.to_numpy()
    prefix, kind = parsed.prefix[ids], parsed.kind[ids]
    malformed, role = prefix == MALFORMED, np.where(prefix == MALFORMED, OUTSIDE, prefix)
    neighbours = SCHEMES[known].neighbours
    legal = np.empty(len(role), dtype=np.bool_)
    same = (kind[1:] == kind[:-1]).astype(np.int8)
    legal[1:] = neighbours.follow[same, role[:-1], role[1:]]
    full = np.diff(offsets) > 0
    starts, lasts = offsets[:-1][full], offsets[1:][full] - 1
    legal[starts] = neighbours.start[role[starts]]
    legal[lasts] &= neighbours.end[role[lasts]]
    return np.flatnonzero(~legal | malformed)


def spans(ids: npt.NDArray[np.integer], offsets: IntArray, tags: SpanTags, scheme: Scheme, mode: Mode) -> SpanArrays:
    """Return the spans in order: starts, ends (exclusive) and types (indices into `tags.types`), (K,) each.

    They are read from ids (N,) in the vocabulary of `tags`, of rows that start at `offsets` (B+1,). An id below 0 is no
    tag: no span includes it.

    `default` reads every run of tags that can be a span as one, like conlleval and seqeval's default, whatever the
    scheme. `strict` reads only what `scheme` allows, like seqeval's `mode="strict"`: a span's first and last tag must
    be possible there, and a letter that marks two touching spans of one type (B in IOB1, E in IOE1) must stand between
    such spans.

    Where seqeval (1.2.2) and legal tags disagree, in IOE1, this function reads what the tags mean: seqeval loses spans
    of a single E. In IOB1 it also drops a span of a single B before a B of another type, which is illegal; this
    function does the same.
    """
    parsed = tags if mode == "default" else tags.within(scheme)
    prefix, kind = np.where(ids < 0, np.int8(OUTSIDE), parsed.prefix[ids]), parsed.kind[ids]
    after_open, follows = _neighbours(prefix, kind, offsets)
    # A span starts at `first` and lasts as long as the following tags continue it. Only the definition of `first`
    # depends on the scheme and mode; strict schemes also reject spans by how they end.
    continues = follows & ((prefix == INSIDE) | (prefix == END))
    layout = SCHEMES[scheme]
    stray = np.zeros(len(prefix), dtype=np.bool_)
    if mode == "default":
        first = (prefix != OUTSIDE) & (prefix != MALFORMED) & ~continues
    else:
        if layout.mark == BEGIN:
            # A B that separates nothing belongs to no span, so an I after it starts one. (At 0 `roll` makes no
            # difference: nothing continues there.)
            stray = (prefix == BEGIN) & ~follows
            continues &= ~np.roll(stray, 1)
        first = np.isin(prefix, layout.roles(FIRST, ONLY)) & ~continues & ~stray
    # The end of a span is the first token after its start that does not continue it.
    starts = np.flatnonzero(first)
    stops = np.append(np.flatnonzero(~continues), len(prefix))
    ends = stops[np.searchsorted(stops, starts, side="right")]
    if mode == "default":
        return starts, ends, kind[starts]
    kept = np.isin(prefix[ends - 1], layout.roles(LAST, ONLY))
    if layout.mark == BEGIN:
        kept &= ~((prefix[ends - 1] == BEGIN) & np.append(stray & after_open, False)[ends])
    elif layout.mark == END:
        kept &= (prefix[ends - 1] != END) | _touches_next(prefix, kind, offsets)[ends - 1]
    return starts[kept], ends[kept], kind[starts[kept]]


def are_right(predicted: SpanArrays, gold: SpanArrays, n_tokens: int) -> BoolArray:
    """Return a mask (K,) of the predicted spans that are correct: a gold span has the same start, end and type."""
    # Gold spans do not overlap, so at most one starts at each token: index their ends and types by that token.
    end_at, type_at = np.zeros(n_tokens, dtype=np.int64), np.full(n_tokens, -1)
    end_at[gold[0]], type_at[gold[0]] = gold[1], gold[2]
    same: BoolArray = (end_at[predicted[0]] == predicted[1]) & (type_at[predicted[0]] == predicted[2])
    return same


def _neighbours(prefix: SmallIntArray, kind: IntArray, offsets: IntArray) -> tuple[BoolArray, BoolArray]:
    """Return two masks (N,): the row's previous tag is B or I; the same, and both tags have the same type."""
    after_open, follows = np.zeros((2, len(kind)), dtype=np.bool_)
    after_open[1:] = (prefix[:-1] == BEGIN) | (prefix[:-1] == INSIDE)
    after_open[offsets[:-1][np.diff(offsets) > 0]] = False
    follows[1:] = after_open[1:] & (kind[1:] == kind[:-1])
    return after_open, follows


def _touches_next(prefix: SmallIntArray, kind: IntArray, offsets: IntArray) -> BoolArray:
    """Return a mask (N,): the next tag of the row belongs to a span of the same type."""
    touches = np.zeros(len(kind), dtype=np.bool_)
    touches[:-1] = (kind[1:] == kind[:-1]) & (prefix[1:] != MALFORMED) & (kind[1:] >= 0)
    touches[offsets[1:][np.diff(offsets) > 0] - 1] = False
    return touches
