"""Conversion of tags among IOB1, IOB2 and IOBES, by way of the spans they mean. Numpy over flat ids, no loops.

Legal tags of two schemes stand for the same sets of spans, so converting them there and back gives the same tags.

Shapes: B rows, N tokens in all, K spans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runner.common.arrays import (
    IntArray,
)
from tasks.spans.tags import (
    ALLOWED,
    BEGIN,
    END,
    INSIDE,
    OUTSIDE,
    PREFIXES,
    SINGLE,
    Scheme,
    SpanArrays,
    SpanTags,
    spans,
)


@dataclass(frozen=True)
class Conversion:
    """From ids of one tag vocabulary to ids of `all_tags(source.types, scheme)`.

    Illegal tags are read as conlleval reads them (`spans` in its default mode): each run of tags that can be a span is
    one, so what comes out is always legal. Malformed tags become `O`.

    Attributes:
        source: what each tag of the first vocabulary says.
        scheme: that of the second.
    """

    source: SpanTags
    scheme: Scheme

    @classmethod
    def of(cls, tags: Sequence[str], scheme: Scheme) -> Conversion:
        """From the ids of `tags`, whatever their scheme."""
        return cls(SpanTags.of(tags), scheme)

    def __call__(self, ids: npt.NDArray[np.integer], offsets: IntArray) -> IntArray:
        """(N,) ids of the same spans in the target's scheme.

        Args:
            ids: (N,) of all rows, one after another.
            offsets: (B+1,) where rows begin.
        """
        # the default reading needs no scheme
        found = spans(ids, offsets, self.source, self.scheme, "default")
        return tag_ids(found, offsets, self.scheme)


def tag_ids(found: SpanArrays, offsets: IntArray, scheme: Scheme) -> IntArray:
    """(N,) ids, in the vocabulary `all_tags(types, scheme)`, of the tags that say so.

    Args:
        found: spans, in order, no two of which overlap; types are places in `types`.
        offsets: (B+1,) where rows begin; no span reaches over a row's end.
        scheme: of the tags.
    """
    starts, ends, types = found
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    inside = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    prefix = np.full(offsets[-1], OUTSIDE)
    prefix[inside] = INSIDE
    if scheme == "IOB1":
        touches = (starts[1:] == ends[:-1]) & (types[1:] == types[:-1]) & ~np.isin(starts[1:], offsets)
        prefix[starts[1:][touches]] = BEGIN
    else:
        prefix[starts] = BEGIN
    if scheme == "IOBES":
        prefix[ends - 1] = END
        prefix[starts[lengths == 1]] = SINGLE
    place = np.zeros(max(PREFIXES.values()) + 1, dtype=np.int64)
    place[[PREFIXES[letter] for letter in ALLOWED[scheme]]] = 1 + np.arange(len(ALLOWED[scheme]))
    ids = place[prefix]  # of the first type, as `all_tags` orders them; O is 0
    ids[inside] += len(ALLOWED[scheme]) * np.repeat(types, lengths)
    return ids
