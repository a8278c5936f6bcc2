"""The allowed transitions are exactly those that `illegal_positions`, which checks whole rows, does not report."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pytest

from tasks.spans.schemes import allowed_by
from tasks.spans.tags import ALLOWED, Scheme, illegal_positions

TAGS = ("O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "X-A", "")


@pytest.mark.parametrize("scheme", ALLOWED)
def test_a_row_is_allowed_if_nothing_in_it_is_illegal(scheme: Scheme) -> None:
    allowed = allowed_by(scheme, TAGS)
    start, follow, end = (item.numpy() for item in (allowed.start, allowed.transitions, allowed.end))
    rows = [row for length in (1, 2, 3) for row in product(range(len(TAGS)), repeat=length)]
    offsets = np.cumsum([0, *map(len, rows)])
    wrong = illegal_positions(pa.array([TAGS[tag] for row in rows for tag in row]), offsets, scheme)
    flagged = np.zeros(len(rows), dtype=bool)
    flagged[np.searchsorted(offsets, wrong, side="right") - 1] = True
    may = [start[row[0]] and end[row[-1]] and all(follow[a, b] for a, b in pairwise(row)) for row in rows]
    assert (np.array(may) == ~flagged).all()
    assert 0 < sum(may) < len(rows)
