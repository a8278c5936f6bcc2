"""The schemes IOB1, IOB2 and IOBES: their legal transitions, and conversion of tags through the spans they encode.

All schemes can encode the same sets of spans, so converting legal tags to another scheme and back is lossless.

Shapes: B rows, N tokens in total, K spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from runner.common.arrays import IntArray
from runner.layers.crf.chain import AllowedTransitions
from tasks.spans.tags import (
    ALLOWED,
    BEGIN,
    END,
    INSIDE,
    MALFORMED,
    OUTSIDE,
    PREFIXES,
    SINGLE,
    Scheme,
    SpanArrays,
    SpanTags,
    all_tags,
    spans,
)


@dataclass(frozen=True)
class Conversion:
    """A map from ids of one tag vocabulary to ids of `all_tags(source.types, scheme)`.

    Illegal tags are read as in conlleval (`spans` in default mode): each run of tags that can be a span is one. So the
    result is always legal. Malformed tags become `O`.
    """

    source: SpanTags  # the parsed tags of the source vocabulary
    scheme: Scheme  # of the target vocabulary

    @classmethod
    def of(cls, tags: Sequence[str], scheme: Scheme) -> Conversion:
        """Return a conversion from the ids of `tags`, which may be of any scheme."""
        return cls(SpanTags.of(tags), scheme)

    def __call__(self, ids: npt.NDArray[np.integer], offsets: IntArray) -> IntArray:
        """Return the ids (N,) of the same spans in the target scheme; rows start at `offsets` (B+1,)."""
        # The default mode does not depend on the scheme, so the target's is as good as the unknown source's.
        return tag_ids(spans(ids, offsets, self.source, self.scheme, "default"), offsets, self.scheme)


@dataclass(frozen=True)
class OwnTags:
    """The data set's tags, where a model may learn and predict those of another scheme."""

    tags: tuple[str, ...]  # (C,) the data set's
    conversion: Conversion | None  # from ids of learned tags to ids of `tags`; None if they are the same

    @classmethod
    def of(cls, learned: tuple[str, ...], learned_scheme: Scheme | None, scheme: Scheme | None) -> OwnTags:
        """Return the tags of the data set's `scheme` (None: plain tags) for the learned tags."""
        if scheme is None or learned_scheme == scheme:
            return cls(learned, None)
        conversion = Conversion.of(learned, scheme)
        return cls(tuple(all_tags(conversion.source.types, scheme)), conversion)

    def ids(self, learned: IntArray, offsets: IntArray) -> IntArray:
        """Return ids (N,) of `tags` from ids (N,) of learned tags; rows start at `offsets` (B+1,)."""
        return learned if self.conversion is None else self.conversion(learned, offsets)


def tag_ids(span_arrays: SpanArrays, offsets: IntArray, scheme: Scheme) -> IntArray:
    """Return the ids (N,), in the vocabulary `all_tags(types, scheme)`, of the tags that encode the given spans.

    Spans are sorted and do not overlap; none crosses the start of a row, `offsets` (B+1,). Their types are indices into
    `types`.
    """
    starts, ends, types = span_arrays
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    # `inside` lists the tokens of all spans: consecutive numbers, shifted to start at each span's first token.
    inside = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    prefix = np.full(offsets[-1], OUTSIDE)
    prefix[inside] = INSIDE
    if scheme == "IOB1":
        # IOB1 writes B only to separate a span from a preceding span of the same type in the same row.
        adjacent = (starts[1:] == ends[:-1]) & (types[1:] == types[:-1]) & ~np.isin(starts[1:], offsets)
        prefix[starts[1:][adjacent]] = BEGIN
    else:
        prefix[starts] = BEGIN
    if scheme == "IOBES":
        prefix[ends - 1] = END
        prefix[starts[lengths == 1]] = SINGLE
    first_id = np.zeros(max(PREFIXES.values()) + 1, dtype=np.int64)
    # `all_tags` lists O, then all prefixes of the first type, of the second, ...: look up the prefix, add the type.
    first_id[[PREFIXES[letter] for letter in ALLOWED[scheme]]] = 1 + np.arange(len(ALLOWED[scheme]))
    ids = first_id[prefix]
    ids[inside] += len(ALLOWED[scheme]) * np.repeat(types, lengths)
    return ids


def allowed_by(scheme: Scheme, tags: Sequence[str]) -> AllowedTransitions:
    """Return the legal transitions among C tags; malformed tags and prefixes that the scheme lacks are never legal."""
    parsed = SpanTags.of(tags).within(scheme)
    is_open = np.isin(parsed.prefix, (BEGIN, INSIDE))
    legal = parsed.prefix != MALFORMED
    same_open = is_open[:, None] & (parsed.kind[:, None] == parsed.kind)  # the row's span may continue at the column
    may_end = legal
    if scheme == "IOBES":
        # An open span must continue with I or E of its type, and nothing else may. So no row ends in an open span.
        continues = np.isin(parsed.prefix, (INSIDE, END))
        follow = np.where(is_open[:, None], same_open & continues, ~continues)
        may_end = legal & ~is_open
    else:
        # In IOB1 only B needs a span of its type before it (it separates two spans); in IOB2 only I does.
        continues = parsed.prefix == (BEGIN if scheme == "IOB1" else INSIDE)
        follow = same_open | ~continues
    follow = follow & legal[:, None] & legal
    return AllowedTransitions(*(torch.from_numpy(mask) for mask in (legal & ~continues, follow, may_end)))
