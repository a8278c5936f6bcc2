"""Conversion of tags between schemes through the spans that they encode, and the transitions that a scheme allows.

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
from tasks.spans.table import BEGIN, FIRST, INNER, LAST, MALFORMED, ONLY, SCHEMES, Scheme, all_tags
from tasks.spans.tags import SpanArrays, SpanTags, spans


@dataclass(frozen=True)
class Conversion:
    """A map from ids of one tag vocabulary to ids of `all_tags(source.types, scheme)`.

    Illegal tags are read as in conlleval (`spans` in default mode): each run of tags that can be a span is one. So the
    result is always legal. Malformed tags become `O`.
    """

    source: SpanTags  # the parsed tags of the source vocabulary
    scheme: Scheme  # scheme of the target vocabulary

    @classmethod
    def of(cls, tags: Sequence[str], source: Scheme, scheme: Scheme) -> Conversion:
        """Return a conversion from the ids of `tags` of the scheme `source`."""
        return cls(SpanTags.of(tags, source), scheme)

    def __call__(self, ids: npt.NDArray[np.integer], offsets: IntArray) -> IntArray:
        """Return the ids (N,) of the same spans in the target scheme; rows start at `offsets` (B+1,)."""
        # The default mode does not depend on the scheme.
        return tag_ids(spans(ids, offsets, self.source, self.scheme, "default"), offsets, self.scheme)


@dataclass(frozen=True)
class OwnTags:
    """The data set's tags, for a model that may learn and predict those of another scheme."""

    tags: tuple[str, ...]  # (C,) tags of the data set
    conversion: Conversion | None  # from ids of learned tags to ids of `tags`; None if they are the same

    @classmethod
    def of(cls, learned: tuple[str, ...], learned_scheme: Scheme | None, scheme: Scheme | None) -> OwnTags:
        """Return the tags of the data set's `scheme` (None: plain tags) for the learned tags."""
        if scheme is None or learned_scheme is None or learned_scheme == scheme:
            return cls(learned, None)
        conversion = Conversion.of(learned, learned_scheme, scheme)
        return cls(tuple(all_tags(conversion.source.types, scheme)), conversion)

    def ids(self, learned: IntArray, offsets: IntArray) -> IntArray:
        """Return ids (N,) of `tags` from ids (N,) of learned tags; rows start at `offsets` (B+1,). Ids below 0 stay."""
        return learned if self.conversion is None else np.where(learned < 0, learned, self.conversion(learned, offsets))


def tag_ids(span_arrays: SpanArrays, offsets: IntArray, scheme: Scheme) -> IntArray:
    """Return the ids (N,), in the vocabulary `all_tags(types, scheme)`, of the tags that encode the given spans.

    Spans are sorted and do not overlap; none crosses the start of a row, `offsets` (B+1,). Their types are indices into
    `types`.
    """
    starts, ends, types = span_arrays
    layout, lengths = SCHEMES[scheme], ends - starts
    before = np.cumsum(lengths) - lengths
    # `inside` lists the tokens of all spans: consecutive numbers, shifted to start at each span's first token.
    inside = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    # -1: outside, otherwise a position in the span
    position = np.full(offsets[-1], -1)
    position[inside] = INNER
    position[starts], position[ends - 1], position[starts[lengths == 1]] = FIRST, LAST, ONLY
    if layout.sparse:
        touches = (starts[1:] == ends[:-1]) & (types[1:] == types[:-1]) & ~np.isin(starts[1:], offsets)
        marked = starts[1:][touches] if layout.mark == BEGIN else ends[:-1][touches] - 1
        position[np.setdiff1d(inside, marked)] = INNER
    # `all_tags` lists O, then all letters of the first type, of the second, ...: look up the letter, add the type.
    letter = np.array([*(1 + layout.used.index(letter) for letter in layout.letters), 0])  # the last entry is for -1
    ids = letter[position]
    ids[inside] += len(layout.used) * np.repeat(types, lengths)
    return ids


def allowed_by(scheme: Scheme, tags: Sequence[str]) -> AllowedTransitions:
    """Return the legal transitions among C tags; malformed tags and letters that the scheme lacks are never legal."""
    parsed = SpanTags.of(tags, scheme).within(scheme)
    legal, role = parsed.prefix != MALFORMED, parsed.prefix
    neighbours = SCHEMES[scheme].neighbours
    same = (parsed.kind[:, None] == parsed.kind).astype(np.int8)
    follow = neighbours.follow[same, role[:, None], role] & legal[:, None] & legal
    start, end = neighbours.start[role] & legal, neighbours.end[role] & legal
    return AllowedTransitions(*(torch.from_numpy(mask) for mask in (start, follow, end)))
