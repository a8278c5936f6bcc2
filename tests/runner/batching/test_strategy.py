"""Strategies: layouts against a row-by-row reference, micro-batches, padding by cause, evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import configs
from runner.batching.same_length import SameLength
from runner.batching.shuffled import Shuffled
from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.batching.token_budget import TokenBudget
from runner.common.errors import HydromelError
from runner.common.records import PADDING_CAUSES
from runner.config.instantiate import build
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from tests.helpers.composed import node_of

CONFIGS = Path(configs.__file__).parent / "batching"
LENGTHS = [3, 0, 7, 1, 1, 5, 2, 9, 4, 0, 6]
SOME_LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=30)
EMPTY = np.array([], dtype=np.int64)


def make_split(lengths, token_target):
    rows = Rows(np.array(lengths, dtype=np.int64), torch.device("cpu"))

    def column(first):
        return Ragged(torch.arange(first, first + rows.n_tokens, dtype=torch.int32), rows, "packed")

    target = column(9000) if token_target else torch.arange(500, 500 + len(lengths))
    return Batch({"word": column(1000), "shape": column(5000)}, target, np.arange(len(lengths)))


def strategy(layout="padded", micro_batch=None, width_multiple=1, batch_size=4):
    plan = Shuffled(batch_size=batch_size)
    return Batching(
        name="x",
        batch_size=batch_size,
        plan=plan,
        micro_batch=micro_batch,
        layout=layout,
        width_multiple=width_multiple,
    )


def rows_of(feature, lengths):
    """Return each row's values as a list, read one token at a time."""
    if feature.layout == "padded":
        return [feature.values[row, :length].tolist() for row, length in enumerate(lengths)]
    values = iter(feature.values.tolist())
    return [[next(values) for _ in range(length)] for length in lengths]


def expected_rows(first, lengths, chosen):
    starts = [sum(lengths[:row]) for row in range(len(lengths))]
    return [[first + starts[row] + place for place in range(lengths[row])] for row in chosen]


@pytest.mark.parametrize("token_target", [True, False])
@pytest.mark.parametrize("layout", ["packed", "padded", "unmasked"])
@pytest.mark.parametrize("micro_batch", [None, 1, 2, 3])
def test_micro_batches_hold_the_rows_of_the_update(layout, micro_batch, token_target):
    split, chosen = make_split(LENGTHS, token_target), np.array([7, 1, 2, 9, 3])
    pieces = list(strategy(layout, micro_batch, width_multiple=4).micro_batches(split, chosen))
    size = micro_batch or len(chosen)
    assert [len(piece.index) for piece in pieces] == [len(chosen[at : at + size]) for at in range(0, len(chosen), size)]
    assert np.concatenate([piece.index for piece in pieces]).tolist() == chosen.tolist()
    for piece in pieces:
        lengths = [LENGTHS[row] for row in piece.index]
        for name, first in (("word", 1000), ("shape", 5000)):
            assert piece.features[name].layout == ("packed" if layout == "packed" else "padded")
            assert rows_of(piece.features[name], lengths) == expected_rows(first, LENGTHS, piece.index)
        if token_target:
            assert rows_of(piece.target, lengths) == expected_rows(9000, LENGTHS, piece.index)
            assert piece.target.rows.host_lengths.tolist() == lengths
        else:
            assert piece.target.tolist() == [500 + row for row in piece.index]
        assert not piece.carries_state


@pytest.mark.parametrize(("width_multiple", "width"), [(1, 7), (4, 8), (8, 8), (16, 16)])
def test_padded_width_is_the_longest_rounded_up_and_padding_is_id_0(width_multiple, width):
    (batch,) = strategy("padded", None, width_multiple).micro_batches(make_split(LENGTHS, True), np.array([2, 0, 1]))
    assert batch.features["word"].values.shape == (3, width)
    assert (batch.features["word"].values[~batch.rows.mask] == 0).all()
    assert batch.rows.host_lengths.tolist() == [7, 3, 0]


def test_unmasked_claims_full_rows():
    (batch,) = strategy("unmasked", None, 4).micro_batches(make_split(LENGTHS, True), np.array([2, 0]))
    assert batch.rows.host_lengths.tolist() == [8, 8]
    assert batch.features["word"].values[1, 3:].tolist() == [0] * 5


def test_micro_batches_of_one_row_hold_the_tokens_of_the_update():
    split, chosen = make_split(LENGTHS, True), np.array([7, 1, 2, 9])
    (whole,) = strategy("packed").micro_batches(split, chosen)
    parts = list(strategy("packed", micro_batch=1).micro_batches(split, chosen))
    joined = torch.cat([part.features["word"].values for part in parts])
    assert joined.tolist() == whole.features["word"].values.tolist()


@pytest.mark.parametrize("layout", ["packed", "padded", "unmasked"])
def test_evaluation_reads_each_row_once_from_short_to_long(layout):
    split = make_split(LENGTHS, True)
    batches = list(strategy(layout).evaluation_batches(split, 3))
    index = np.concatenate([batch.index for batch in batches])
    assert [len(batch.index) for batch in batches] == [3, 3, 3, 2]
    assert index.tolist() == sorted(range(len(LENGTHS)), key=lambda row: LENGTHS[row])
    for batch in batches:
        assert rows_of(batch.target, [LENGTHS[row] for row in batch.index]) == expected_rows(9000, LENGTHS, batch.index)
        assert batch.features["word"].layout == ("packed" if layout == "packed" else "padded")
    assert list(strategy(layout).evaluation_batches(make_split([], True), 3)) == []


@settings(max_examples=60, deadline=None)
@given(
    lengths=SOME_LENGTHS,
    micro_batch=st.none() | st.integers(1, 5),
    width_multiple=st.integers(1, 8),
    layout=st.sampled_from(["packed", "padded", "unmasked"]),
)
def test_causes_add_up_to_the_padding_that_lies_in_memory(lengths, micro_batch, width_multiple, layout):
    batching, split = strategy(layout, micro_batch, width_multiple), make_split(lengths, True)
    updates = batching.updates(split.rows.host_lengths, seed=1, epoch=0)
    in_memory, one_by_one = 0, dict.fromkeys(PADDING_CAUSES, 0)
    for update in updates:
        of_update = 0
        for batch in batching.micro_batches(split, update):
            cells = batch.features["word"].values.numel() - batch.target.rows.n_tokens
            assert layout == "unmasked" or cells == batch.padded_tokens
            of_update += cells
        causes = batching.padding(split.rows.host_lengths, [update])
        assert sum(causes.values()) == of_update
        in_memory += of_update
        one_by_one = {cause: one_by_one[cause] + causes[cause] for cause in PADDING_CAUSES}
    total = batching.padding(split.rows.host_lengths, updates)
    assert total == one_by_one
    assert sum(total.values()) == in_memory


def test_causes_are_told_apart():
    batching = strategy("padded", width_multiple=4)
    lengths = np.array([3, 1, 5, 2, 6, 1])
    updates = [np.arange(4), np.arange(4, 6)]
    assert batching.padding(lengths, updates[:1]) == {"spread": 2 + 4 + 0 + 3, "last_batch": 0, "rounding": 4 * 3}
    assert batching.padding(lengths, updates[1:]) == {"spread": 0, "last_batch": 5, "rounding": 2 * 2}
    assert batching.padding(lengths, updates) == {"spread": 9, "last_batch": 5, "rounding": 16}


def test_no_rows_no_padding():
    for layout in ("packed", "padded"):
        assert strategy(layout).padding(EMPTY, []) == dict.fromkeys(PADDING_CAUSES, 0)


def test_same_length_has_no_padding():
    plan = SameLength(batch_size=4)
    batching = Batching(name="x", batch_size=4, plan=plan, micro_batch=None, layout="padded", width_multiple=1)
    lengths = np.array([length for length in LENGTHS if length] * 5)  # an empty row would take up one place
    updates = batching.updates(lengths, 1, 0)
    assert sum(batching.padding(lengths, updates).values()) == 0


def test_updates_come_from_seed_and_epoch_alone():
    def updates(seed, epoch):
        return [update.tolist() for update in strategy().updates(np.array(LENGTHS), seed, epoch)]

    assert updates(1, 0) == updates(1, 0)
    assert len({str(updates(seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}) == 6
    assert updates(1, 2) != updates(2, 1)


def test_a_budget_has_no_short_updates():
    plan, lengths = TokenBudget(max_tokens=None, batch_size=4, buckets=2), np.array(LENGTHS)
    batching = Batching(name="x", batch_size=4, plan=plan, micro_batch=None, layout="padded", width_multiple=1)
    updates = batching.updates(lengths, 1, 0)
    assert min(len(update) for update in updates) < 4
    assert batching.padding(lengths, updates)["last_batch"] == 0
    assert batching.with_batch_size(9).plan.budget(lengths) > plan.budget(lengths)
    assert replace(batching, plan=replace(plan, max_tokens=20)).batch_size is None


def test_rows_are_arranged_as_they_are():
    split = make_split(LENGTHS, True)
    assert strategy().arrange(split) is split


# the configs


def node(name, **changes):
    """Return a config with its interpolations resolved, as Hydra does."""
    config = node_of("batching", name) | changes
    if "plan" in config:
        config["plan"]["batch_size"] = config["batch_size"]
    return config


def names():
    """Check all configs but auto, which is composed of others (tests/runner/advisor/test_choose.py)."""
    result = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "auto")
    assert result
    return result


@pytest.mark.parametrize("name", names())
def test_every_config_builds(name):
    batching = build(node(name), "batching", {})
    assert batching.name == name
    assert isinstance(batching, Stream if name == "stream" else Batching)
    assert (CONFIGS / f"{name}.yaml").read_text().startswith("# ")


def test_the_configs_of_the_table():
    assert {"size1", "same_length", "bucketed", "padmask", "packed", "unmasked", "token_budget"} <= set(names())
    shared = [build(node(name), "batching", {}) for name in ("size1", "padmask", "packed")]
    updates = [[update.tolist() for update in item.updates(np.arange(100), 1, 0)] for item in shared]
    assert updates[0] == updates[1] == updates[2]
    assert [item.micro_batch for item in shared] == [1, None, None]
    assert "KNOWN TO BE WRONG" in (CONFIGS / "unmasked.yaml").read_text()


@pytest.mark.parametrize("name", ["size1", "bucketed", "same_length"])
def test_batch_size_limits_every_update(name):
    batching = build(node(name, batch_size=5), "batching", {})
    lengths = np.random.default_rng(0).integers(1, 30, 200)
    assert max(len(update) for update in batching.updates(lengths, 1, 0)) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batching.batch_size=0"),
        ({"layout": "pakced"}, "batching.layout='pakced'"),
        ({"micro_batch": 0}, "batching.micro_batch=0"),
        ({"width_multiple": 1.5}, "batching.width_multiple=1.5"),
        ({"bath_size": 3}, "did you mean 'batch_size'"),
    ],
)
def test_bad_options_are_named(changes, message):
    with pytest.raises(HydromelError, match=message.replace(".", r"\.")):
        build(node("padmask", **changes), "batching", {})


def test_two_batch_sizes_are_refused():
    config = node("padmask")
    config["plan"]["batch_size"] = 8
    with pytest.raises(HydromelError, match=r"plan\.batch_size=8 but batch_size=32"):
        build(config, "batching", {})


def test_a_plan_must_be_a_node():
    with pytest.raises(HydromelError, match=r"batching\.plan='shuffled'"):
        build(node("padmask") | {"plan": "shuffled"}, "batching", {})
