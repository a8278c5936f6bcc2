"""The tags that may start a row, follow each other and end a row in a scheme: those that `illegal_positions` allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from runner.layers.crf.chain import AllowedTransitions
from tasks.spans.tags import BEGIN, END, INSIDE, MALFORMED, Scheme, SpanTags


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
