"""Computed sizes of micro-batches against the pieces themselves."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.batching.plan import cut, padding_by_cause
from runner.ragged.shapes import shapes_of

MANY = settings(max_examples=150, deadline=None)


@MANY
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    micro_batch=st.none() | st.integers(1, 5),
    multiple=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_shapes_are_those_of_the_pieces(sizes, micro_batch, multiple, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 20, sum(sizes))
    updates = np.split(rng.permutation(len(lengths)), np.cumsum(sizes)[:-1])
    shapes = shapes_of(updates, lengths, micro_batch, multiple)
    pieces = [piece for update in updates for piece in (cut(update, micro_batch) if micro_batch else [update])]
    assert shapes.rows.tolist() == [len(piece) for piece in pieces]
    assert shapes.tokens.tolist() == [lengths[piece].sum() for piece in pieces]
    assert shapes.widths.tolist() == [-(-max(1, lengths[piece].max()) // multiple) * multiple for piece in pieces]
    padding = padding_by_cause(
        lengths[np.concatenate(updates)], shapes.rows, np.zeros(len(pieces), dtype=bool), multiple
    )
    assert sum(padding.values()) == (shapes.cells - shapes.tokens).sum()
