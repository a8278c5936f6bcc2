"""Spans of tags: which tags are illegal, and which spans a sequence of tags means. Numpy over flat ids, no loops.

Shapes: B rows, N tokens in all, K spans. A tag is `O` or `PREFIX-TYPE` with a prefix of B, I, E, S; anything else is
malformed and means the same as `O`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.common.arrays import BoolArray, IntArray
from runner.common.errors import HydromelError

SmallIntArray = npt.NDArray[np.int8]
SpanArrays = tuple[IntArray, IntArray, IntArray]  # starts, ends (exclusive), types: (K,) each
Scheme = Literal["IOB1", "IOB2", "IOBES"]
Mode = Literal["default", "strict"]

OUTSIDE, BEGIN, INSIDE, END, SINGLE, MALFORMED = range(6)
PREFIXES = {"B": BEGIN, "I": INSIDE, "E": END, "S": SINGLE}
ALLOWED: dict[Scheme, str] = {"IOB1": "BI", "IOB2": "BI", "IOBES": "BIES"}


def as_scheme(scheme: str) -> Scheme:
    """`scheme`, if it is one.

    Raises:
        HydromelError: it is not one of IOB1, IOB2, IOBES.
    """
    for known in ALLOWED:
        if scheme == known:
            return known
    raise HydromelError(f"span_scheme='{scheme}'; use one of {', '.join(ALLOWED)} or null (configs/task/tag.yaml)")


def headline_mode(scheme: Scheme) -> Mode:
    """How spans are read for the figures that stand first: strict for IOBES, where the default reading calls some wrong
    answers right, and default (that of conlleval and of published figures) for IOB1 and IOB2.
    """
    return "strict" if scheme == "IOBES" else "default"


@dataclass(frozen=True)
class SpanTags:
    """What each of C tags says.

    Attributes:
        prefix: (C,) one of OUTSIDE, BEGIN, INSIDE, END, SINGLE, MALFORMED.
        kind: (C,) place in `types`, or -1 where there is no type.
        types: names of the span types, in alphabetical order.
    """

    prefix: SmallIntArray
    kind: IntArray
    types: tuple[str, ...]

    @classmethod
    def of(cls, tags: Sequence[str]) -> SpanTags:
        found = [re.fullmatch(r"([BIES])-(.+)", tag, re.DOTALL) for tag in tags]
        types = tuple(sorted({match[2] for match in found if match}))
        place = {name: number for number, name in enumerate(types)}
        prefix = [
            PREFIXES[match[1]] if match else OUTSIDE if tag == "O" else MALFORMED
            for tag, match in zip(tags, found, strict=True)
        ]
        kind = [place[match[2]] if match else -1 for match in found]
        return cls(np.array(prefix, dtype=np.int8), np.array(kind, dtype=np.int64), types)

    def within(self, scheme: Scheme) -> SpanTags:
        """The same with prefixes that `scheme` has no use for as MALFORMED."""
        allowed = [OUTSIDE, *(PREFIXES[letter] for letter in ALLOWED[scheme])]
        prefix = np.where(np.isin(self.prefix, allowed), self.prefix, MALFORMED).astype(np.int8)
        return SpanTags(prefix, self.kind, self.types)


def all_tags(types: Sequence[str], scheme: Scheme) -> list[str]:
    """`O`, and every prefix of `scheme` with every type."""
    return ["O", *(f"{prefix}-{name}" for name in types for prefix in ALLOWED[scheme])]


def illegal(tags: pa.StringArray, offsets: IntArray, scheme: str) -> IntArray:
    """Flat positions, sorted, whose tag may not stand there.

    Malformed tags; in IOB1 a B that does not follow a span of its own type; in IOB2 an I that does not; in IOBES a tag
    that does not go on with an open span, or goes on with none. A span of IOBES that is still open at the end of its
    row counts at the row's last token.

    Args:
        tags: (N,) of all rows, one after another.
        offsets: (B+1,) where rows begin.
        scheme: IOB1, IOB2 or IOBES.

    Raises:
        HydromelError: an unknown scheme.
    """
    encoded = tags.fill_null("").dictionary_encode()
    known = SpanTags.of(encoded.dictionary.to_pylist()).within(as_scheme(scheme))
    ids = encoded.indices.to_numpy()
    prefix, kind = known.prefix[ids], known.kind[ids]
    after_open, same_type = _neighbours(prefix, kind, offsets)
    follows = after_open & same_type
    if scheme == "IOB1":
        wrong = (prefix == BEGIN) & ~follows
    elif scheme == "IOB2":
        wrong = (prefix == INSIDE) & ~follows
    else:
        goes_on = (prefix == INSIDE) | (prefix == END)
        wrong = (after_open | goes_on) & ~(follows & goes_on)
        last = offsets[1:][np.diff(offsets) > 0] - 1
        wrong[last] |= _is_open(prefix[last])
    return np.flatnonzero(wrong | (prefix == MALFORMED))


def spans(ids: npt.NDArray[np.integer], offsets: IntArray, tags: SpanTags, scheme: Scheme, mode: Mode) -> SpanArrays:
    """The spans, in order: starts, ends (exclusive) and types (places in `tags.types`), (K,) each.

    `default` takes every run of tags as a span that can be one, as conlleval and seqeval's default do, whatever the
    scheme. `strict` takes only what `scheme` allows, as seqeval's `mode="strict"`: in IOB2 a span begins with B, in
    IOBES it is S or B..E; in IOB1 it begins with I, or with B right after its own type.

    In IOB1 seqeval also drops a span of one B before a B of another type (scheme.py, `IOB1.end_patterns` lack it); so
    does this, to give the same figures.

    Args:
        ids: (N,) places of tags in the vocabulary that `tags` was made from.
        offsets: (B+1,) where rows begin.
        tags: what each tag of the vocabulary says.
        scheme: what the tags mean; `default` reads any.
        mode: default or strict.
    """
    said = tags if mode == "default" else tags.within(scheme)
    prefix, kind = said.prefix[ids], said.kind[ids]
    after_open, same_type = _neighbours(prefix, kind, offsets)
    goes_on = after_open & same_type & ((prefix == INSIDE) | (prefix == END))
    begin = prefix == BEGIN
    if mode == "default":
        first = (prefix != OUTSIDE) & (prefix != MALFORMED) & ~goes_on
    elif scheme == "IOB1":
        allowed_begin = begin & after_open & same_type
        stray_before = _shift(begin & ~allowed_begin)
        first = allowed_begin | ((prefix == INSIDE) & (~goes_on | stray_before))
    elif scheme == "IOB2":
        first = begin
    else:
        first = begin | (prefix == SINGLE)
    starts = np.flatnonzero(first)
    stops = np.append(np.flatnonzero(~goes_on), len(prefix))
    ends = stops[np.searchsorted(stops, starts, side="right")]
    if mode == "strict" and scheme == "IOBES":
        kept = np.isin(prefix[ends - 1], (END, SINGLE))
    elif mode == "strict" and scheme == "IOB1":
        cut_off = np.append(begin & after_open & ~same_type, False)
        kept = ~(begin[ends - 1] & cut_off[ends])
    else:
        return starts, ends, kind[starts]
    return starts[kept], ends[kept], kind[starts[kept]]


def are_right(predicted: SpanArrays, gold: SpanArrays, n_tokens: int) -> BoolArray:
    """(K,) whether each predicted span is a gold one: same start, end and type. No two gold spans begin together."""
    end_at, type_at = np.zeros(n_tokens, dtype=np.int64), np.full(n_tokens, -1)
    end_at[gold[0]], type_at[gold[0]] = gold[1], gold[2]
    same: BoolArray = (end_at[predicted[0]] == predicted[1]) & (type_at[predicted[0]] == predicted[2])
    return same


def _neighbours(prefix: SmallIntArray, kind: IntArray, offsets: IntArray) -> tuple[BoolArray, BoolArray]:
    """(N,) whether the tag before is B or I, (N,) whether it has the same type; both false where a row begins."""
    begins = offsets[:-1][np.diff(offsets) > 0]
    after_open, same_type = _shift(_is_open(prefix)), np.zeros(len(kind), dtype=np.bool_)
    same_type[1:] = kind[1:] == kind[:-1]
    after_open[begins] = same_type[begins] = False
    return after_open, same_type


def _is_open(prefix: SmallIntArray) -> BoolArray:
    is_open: BoolArray = (prefix == BEGIN) | (prefix == INSIDE)
    return is_open


def _shift(mask: BoolArray) -> BoolArray:
    """What stands one place before; false at the beginning."""
    before = np.zeros_like(mask)
    before[1:] = mask[:-1]
    return before
