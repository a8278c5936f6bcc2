"""The allowed transitions are exactly those that `illegal_positions`, which checks whole rows, does not report."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pyarrow as pa
import pytest

from tasks.spans.schemes import allowed_by
from tasks.spans.table import SCHEMES, Scheme
from tasks.spans.tags import illegal_positions

TAGS = ("O", "B-A", "I-A", "E-A", "S-A", "B-B", "I-B", "E-B", "X-A", "")
OTHER_LETTERS = {"BILOU": "BILU", "BMES": "BMES", "BMEWO": "BMEW"}


def tags_of(scheme: Scheme) -> list[str]:
    """Return `TAGS` with the letters of a scheme, on the side where it has them."""
    name, _, suffixed = scheme.partition("-")
    letters = dict(zip("BIES", OTHER_LETTERS.get(name, "BIES"), strict=True))
    pairs = [(letters.get(tag[:1], tag[:1]), tag[2:]) for tag in TAGS]
    return [first + (kind and f"-{kind}") if not (suffixed and kind) else f"{kind}-{first}" for first, kind in pairs]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_row_is_allowed_if_nothing_in_it_is_illegal(scheme: Scheme) -> None:
    tags = tags_of(scheme)
    allowed = allowed_by(scheme, tags)
    start, follow, end = (item.numpy() for item in (allowed.start, allowed.transitions, allowed.end))
    rows = [row for length in (1, 2, 3) for row in product(range(len(tags)), repeat=length)]
    offsets = np.cumsum([0, *map(len, rows)])
    wrong = illegal_positions(pa.array([tags[tag] for row in rows for tag in row]), offsets, scheme)
    flagged = np.zeros(len(rows), dtype=bool)
    flagged[np.searchsorted(offsets, wrong, side="right") - 1] = True
    may = [start[row[0]] and end[row[-1]] and all(follow[a, b] for a, b in pairwise(row)) for row in rows]
    assert (np.array(may) == ~flagged).all()
    assert 0 < sum(may) < len(rows)
