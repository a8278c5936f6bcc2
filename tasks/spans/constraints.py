"""Which tags may begin a row, follow one another, and end a row, by their scheme: what `tags.illegal` lets pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from runner.layers.crf.chain import Allowed
from tasks.spans.tags import BEGIN, END, INSIDE, MALFORMED, Scheme, SpanTags


def allowed_by(scheme: Scheme, tags: Sequence[str]) -> Allowed:
    """For C tags; malformed ones, and prefixes that the scheme lacks, may stand nowhere."""
    said = SpanTags.of(tags).within(scheme)
    is_open = np.isin(said.prefix, (BEGIN, INSIDE))
    legal = said.prefix != MALFORMED
    same_open = is_open[:, None] & (said.kind[:, None] == said.kind)  # a span of the same type may go on
    may_end = legal
    if scheme == "IOBES":
        goes_on = np.isin(said.prefix, (INSIDE, END))
        follow = np.where(is_open[:, None], same_open & goes_on, ~goes_on)
        may_end = legal & ~is_open
    else:
        goes_on = said.prefix == (BEGIN if scheme == "IOB1" else INSIDE)
        follow = same_open | ~goes_on
    follow = follow & legal[:, None] & legal
    return Allowed(*(torch.from_numpy(one) for one in (legal & ~goes_on, follow, may_end)))
