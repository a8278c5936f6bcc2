"""Spans encoded as tags: finding illegal tags, and decoding tags to spans. Numpy over flat ids, no loops.

A tag is `O` or `PREFIX-TYPE` with the prefix B, I, E or S; anything else is malformed and is treated as `O`.

Shapes: B rows, N tokens in total, K spans.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
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

log = logging.getLogger(__name__)


def as_scheme(scheme: str) -> Scheme:
    """Return `scheme` as a `Scheme`.

    Raises:
        HydromelError: it is not one of IOB1, IOB2, IOBES.
    """
    for known in ALLOWED:
        if scheme == known:
            return known
    raise HydromelError(f"span_scheme='{scheme}'; use one of {', '.join(ALLOWED)} or null (configs/task/tag.yaml)")


def headline_mode(scheme: Scheme) -> Mode:
    """Return the mode of the headline figures: strict for IOBES, default for IOB1 and IOB2.

    The default mode is that of conlleval and of published figures. For IOBES it would accept some wrong predictions.
    """
    return "strict" if scheme == "IOBES" else "default"


@dataclass(frozen=True)
class SpanTags:
    """A vocabulary of C tags, parsed into prefixes and types."""

    prefix: SmallIntArray  # (C,) OUTSIDE, BEGIN, INSIDE, END, SINGLE or MALFORMED
    kind: IntArray  # (C,) index into `types`, or -1 for tags without a type
    types: tuple[str, ...]  # names of the span types, in alphabetical order

    @classmethod
    def of(cls, tags: Sequence[str]) -> SpanTags:
        matches = [re.fullmatch(r"([BIES])-(.+)", tag, re.DOTALL) for tag in tags]
        types = tuple(sorted({match[2] for match in matches if match}))
        kind = [types.index(match[2]) if match else -1 for match in matches]
        plain = [OUTSIDE if tag == "O" else MALFORMED for tag in tags]
        prefix = [PREFIXES[match[1]] if match else other for match, other in zip(matches, plain, strict=True)]
        return cls(np.array(prefix, dtype=np.int8), np.array(kind, dtype=np.int64), types)

    def within(self, scheme: Scheme) -> SpanTags:
        """Return a copy in which prefixes that `scheme` does not use are MALFORMED."""
        allowed = [OUTSIDE, *(PREFIXES[letter] for letter in ALLOWED[scheme])]
        prefix = np.where(np.isin(self.prefix, allowed), self.prefix, MALFORMED).astype(np.int8)
        return SpanTags(prefix, self.kind, self.types)


def all_tags(types: Sequence[str], scheme: Scheme) -> list[str]:
    """Return `O`, then every prefix of `scheme` for the first type, for the second, ..."""
    return ["O", *(f"{prefix}-{name}" for name in types for prefix in ALLOWED[scheme])]


def illegal_positions(tags: pa.StringArray, offsets: IntArray, scheme: str) -> IntArray:
    """Return the sorted flat positions of illegal tags, from the tags (N,) of rows that start at `offsets` (B+1,).

    Illegal are malformed tags; in IOB1 a B that does not follow a span of its type; in IOB2 an I that does not; in
    IOBES a tag that fails to continue an open span, or continues a span that is not open. An IOBES span still open at
    the end of its row is reported at the row's last token.

    Raises:
        HydromelError: an unknown scheme.
    """
    # Parse each distinct tag once, then look the results up for all N tokens.
    encoded = tags.fill_null("").dictionary_encode()
    parsed = SpanTags.of(encoded.dictionary.to_pylist()).within(as_scheme(scheme))
    ids = encoded.indices.to_numpy()
    prefix, kind = parsed.prefix[ids], parsed.kind[ids]
    after_open, follows = _neighbours(prefix, kind, offsets)
    if scheme == "IOB1":
        wrong = (prefix == BEGIN) & ~follows
    elif scheme == "IOB2":
        wrong = (prefix == INSIDE) & ~follows
    else:
        continues = (prefix == INSIDE) | (prefix == END)
        wrong = (after_open | continues) & ~(follows & continues)
        # A span left open at the end of a row has no following tag that could be illegal: report the last tag.
        last = offsets[1:][np.diff(offsets) > 0] - 1
        wrong[last] |= np.isin(prefix[last], (BEGIN, INSIDE))
    return np.flatnonzero(wrong | (prefix == MALFORMED))


def check_tags(
    tags: pa.Array, offsets: IntArray, scheme: Scheme | None, strict: bool, at: Callable[[int], str]
) -> None:
    """Check the tags (N,) of sentences that start at `offsets` (B+1,): none may be illegal (`illegal_positions`).

    Without a scheme there is nothing to check. Unless `strict`, illegal tags are kept and counted in the log. Messages
    name the place `at(position)`.

    Raises:
        HydromelError: the first illegal tag, if strict.
    """
    if scheme is None:
        return
    places = illegal_positions(tags, offsets, scheme)
    if not len(places):
        return
    first = int(places[0])
    context = "at the start of a sentence" if first in offsets else f"after '{tags[first - 1].as_py()}'"
    what = f"{at(first)}: tag '{tags[first].as_py()}' {context} is illegal in {scheme}"
    if strict:
        raise HydromelError(
            f"{what} (illegal tags in the file: {len(places)}); "
            "set the file's scheme with dataset.span_scheme, or keep such tags with dataset.strict_tags=false"
        )
    log.warning("%s; %d illegal tags are kept", what, len(places))


def spans(ids: npt.NDArray[np.integer], offsets: IntArray, tags: SpanTags, scheme: Scheme, mode: Mode) -> SpanArrays:
    """Return the spans in order: starts, ends (exclusive) and types (indices into `tags.types`), (K,) each.

    They are read from ids (N,) in the vocabulary of `tags`, of rows that start at `offsets` (B+1,).

    `default` reads every run of tags that can be a span as one, like conlleval and seqeval's default, whatever the
    scheme. `strict` reads only what `scheme` allows, like seqeval's `mode="strict"`: in IOB2 a span starts with B, in
    IOBES it is S or B..E; in IOB1 it starts with I, or with B directly after a span of its type.

    In IOB1 seqeval also drops a span of a single B before a B of another type (`IOB1.end_patterns` in its scheme.py
    lacks this case). This function does the same, so that the figures agree.
    """
    parsed = tags if mode == "default" else tags.within(scheme)
    prefix, kind = parsed.prefix[ids], parsed.kind[ids]
    after_open, follows = _neighbours(prefix, kind, offsets)
    # A span starts at `first` and lasts as long as the following tags continue it. Only the definition of `first`
    # depends on the scheme and mode; two strict schemes also reject spans by how they end.
    continues = follows & ((prefix == INSIDE) | (prefix == END))
    is_begin = prefix == BEGIN
    if mode == "default":
        first = (prefix != OUTSIDE) & (prefix != MALFORMED) & ~continues
    elif scheme == "IOB1":
        # B is legal only directly after a span of its type, which it separates from the next. An I after a B that is
        # not legal starts a new span, since that B belongs to none.
        allowed_begin = is_begin & follows
        stray_before = np.roll(is_begin & ~follows, 1)  # at 0 it makes no difference: nothing continues there
        first = allowed_begin | ((prefix == INSIDE) & (~continues | stray_before))
    elif scheme == "IOB2":
        first = is_begin
    else:
        first = is_begin | (prefix == SINGLE)
    # The end of a span is the first token after its start that does not continue it.
    starts = np.flatnonzero(first)
    stops = np.append(np.flatnonzero(~continues), len(prefix))
    ends = stops[np.searchsorted(stops, starts, side="right")]
    if mode == "strict" and scheme == "IOBES":
        kept = np.isin(prefix[ends - 1], (END, SINGLE))
    elif mode == "strict" and scheme == "IOB1":
        cut_off = np.append(is_begin & after_open & ~follows, False)
        kept = ~(is_begin[ends - 1] & cut_off[ends])
    else:
        return starts, ends, kind[starts]
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
