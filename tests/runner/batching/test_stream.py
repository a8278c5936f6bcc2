"""Streams against a token-by-token reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.batching.stream import Stream
from runner.common.errors import HydromelError
from runner.common.records import PADDING_CAUSES
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows


def text(n_tokens):
    """Return a text whose token t has the feature 10 + t and the target 1010 + t."""
    rows = Rows(np.array([n_tokens]), torch.device("cpu"))
    ids = torch.arange(10, 10 + n_tokens, dtype=torch.int32)
    return Batch({"word": Ragged(ids, rows, "packed")}, Ragged(ids + 1000, rows, "packed"), np.arange(1))


def stream(batch_size=3, window=4, evaluation_streams=2, layout="packed", half_rate=0.0, spread=0.0):
    return Stream(
        name="stream",
        batch_size=batch_size,
        window=window,
        half_rate=half_rate,
        spread=spread,
        evaluation_streams=evaluation_streams,
        layout=layout,
    )


def read(batches, n_streams):
    """Return what each stream has read after all batches; check layout, targets and state on the way."""
    streams = [[] for _ in range(n_streams)]
    for batch in batches:
        assert batch.carries_state
        assert len(batch.index) == n_streams
        packed, target = batch.features["word"].pack(), batch.target.pack()
        assert target.values.tolist() == (packed.values + 1000).tolist()
        values = iter(packed.values.tolist())
        for own, length in zip(streams, batch.rows.host_lengths.tolist(), strict=True):
            own.extend(next(values) for _ in range(length))
    return streams


@settings(max_examples=80, deadline=None)
@given(
    n_tokens=st.integers(1, 80),
    n_streams=st.integers(1, 6),
    window=st.integers(1, 9),
    layout=st.sampled_from(["packed", "padded"]),
)
def test_training_reads_equal_streams_in_order(n_tokens, n_streams, window, layout):
    item = stream(n_streams, window, layout=layout)
    split = text(n_tokens)
    if n_tokens < n_streams:
        with pytest.raises(HydromelError, match=f"batching.batch_size={n_streams}: a text of {n_tokens} tokens"):
            item.arrange(split)
        return
    arranged = item.arrange(split)
    updates = item.updates(arranged.rows.host_lengths, seed=1, epoch=0)
    batches = [batch for update in updates for batch in item.micro_batches(arranged, update)]
    entry = n_tokens // n_streams
    assert read(batches, n_streams) == [[10 + s * entry + t for t in range(entry)] for s in range(n_streams)]
    assert [len(batch.rows.host_lengths) for batch in batches] == [n_streams] * -(-entry // window)
    assert all(set(batch.rows.host_lengths.tolist()) == {window} for batch in batches[:-1])
    assert sum(batch.real_tokens for batch in batches) == arranged.real_tokens == entry * n_streams
    assert sum(batch.padded_tokens for batch in batches) == 0
    assert item.padding(arranged.rows.host_lengths, updates) == dict.fromkeys(PADDING_CAUSES, 0)


@settings(max_examples=80, deadline=None)
@given(
    n_tokens=st.integers(0, 80),
    n_streams=st.integers(1, 6),
    window=st.integers(1, 9),
    layout=st.sampled_from(["packed", "padded"]),
)
def test_evaluation_reads_each_token_once_in_order(n_tokens, n_streams, window, layout):
    item = stream(2, window, n_streams, layout)
    streams = read(list(item.evaluation_batches(text(n_tokens), batch_size=99)), n_streams)
    assert [token for own in streams for token in own] == list(range(10, 10 + n_tokens))
    entry = -(-n_tokens // n_streams)
    assert all(len(own) == entry for own in streams[: n_tokens // entry if entry else 0])
    assert all(len(own) <= entry for own in streams)


def test_padded_evaluation_has_empty_rows_past_the_end_of_the_text():
    item = stream(2, 4, 3, "padded")
    batches = list(item.evaluation_batches(text(13), batch_size=1))
    assert [batch.rows.host_lengths.tolist() for batch in batches] == [[4, 4, 3], [1, 1, 0]]
    assert [batch.padded_tokens for batch in batches] == [1, 1]


def test_row_numbers_are_window_times_streams_plus_stream():
    arranged = stream(batch_size=3, window=4).arrange(text(32))  # 10 tokens per stream: windows of 4, 4, 2
    assert arranged.rows.host_lengths.tolist() == [4] * 6 + [2] * 3
    first_tokens = arranged.features["word"].values[arranged.rows.offsets[:-1]] - 10
    assert first_tokens.tolist() == [0, 10, 20, 4, 14, 24, 8, 18, 28]
    assert arranged.index.tolist() == list(range(9))


def test_updates_do_not_depend_on_seed_or_epoch():
    lengths = np.array([4] * 6 + [2] * 3)
    updates = [
        [update.tolist() for update in stream().updates(lengths, seed, epoch)] for seed, epoch in ((1, 0), (2, 5))
    ]
    assert updates[0] == updates[1] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_rows_that_are_not_one_text_are_refused():
    rows = Rows(np.array([4, 5]), torch.device("cpu"))
    two = Ragged(torch.arange(9), rows, "packed")
    with pytest.raises(HydromelError, match=r"unit=stream.*got 2 rows"):
        stream().arrange(Batch({"word": two}, two, np.arange(2)))
    with pytest.raises(HydromelError, match="one target per token"):
        stream().arrange(Batch(text(9).features, torch.zeros(1), np.arange(1)))


@settings(max_examples=80, deadline=None)
@given(
    n_streams=st.integers(1, 6),
    each=st.integers(1, 90),
    rest=st.integers(0, 5),
    window=st.integers(1, 12),
    varied=st.sampled_from([(0.5, 0.0), (0.0, 3.0), (0.3, 2.0)]),
    layout=st.sampled_from(["packed", "padded"]),
)
def test_windows_that_vary_read_each_token_once_in_order(n_streams, each, rest, window, varied, layout):
    split = text(n_streams * each + min(rest, n_streams - 1))
    item = stream(n_streams, window, layout=layout, half_rate=varied[0], spread=varied[1])
    arranged = item.arrange(split)
    counts = set()
    for epoch in range(3):
        updates = item.updates(arranged.rows.host_lengths, 1, epoch)
        batches = [batch for update in updates for batch in item.micro_batches(arranged, update)]
        assert read(batches, n_streams) == [[10 + s * each + t for t in range(each)] for s in range(n_streams)]
        for update, batch in zip(updates, batches, strict=True):
            width = batch.rows.max_len
            assert batch.rows.host_lengths.tolist() == [width] * n_streams, "rectangles, for the fused kernel"
            assert item.learning_rate_factor(update) == width / window
            assert batch.padded_tokens == 0
        assert sum(batch.rows.max_len < min(5, window) for batch in batches) <= 1
        counts.add(len(updates))
    assert len(counts) == 1


def test_windows_vary_as_asked_for_and_by_seed_and_epoch():
    item = stream(batch_size=2, window=70, half_rate=0.05, spread=5.0)
    lengths = item.arrange(text(400_000)).rows.host_lengths

    def widths(seed, epoch):
        return np.array([len(update) // 2 for update in item.updates(lengths, seed, epoch)])

    first = widths(1, 0)
    half = first < 52
    assert 0.03 < half.mean() < 0.07
    assert abs(first[~half].mean() - 69.5) < 0.5, "of 70, rounded down"
    assert abs(first[half][1:].mean() - 34.5) < 1.5
    assert abs(first[~half].std() - 5) < 0.3
    assert first.tolist() == widths(1, 0).tolist()
    assert sorted(first) == sorted(widths(1, 1))
    assert first.tolist() != widths(1, 1).tolist()
    assert sorted(first) != sorted(widths(2, 0))


def test_windows_that_do_not_vary_leave_the_rate_as_it_is():
    item = stream(batch_size=3, window=4)
    assert [item.learning_rate_factor(update) for update in item.updates(np.array([4] * 6 + [2] * 3), 1, 0)] == [
        1.0,
        1.0,
        1.0,
    ]


def test_the_longest_row_is_the_window_of_the_update():
    for item in (stream(window=5), stream(window=9, half_rate=0.5, spread=2.0)):
        arranged = item.arrange(text(97))
        updates = item.updates(arranged.rows.host_lengths, 1, 0)
        widths = [next(item.micro_batches(arranged, rows)).rows.max_len for rows in updates]
        assert item.longest(arranged.rows.host_lengths, updates).tolist() == widths
        assert len(set(widths)) > 1
