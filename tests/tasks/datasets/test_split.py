"""Cutting missing splits: it is stable, fractions hold on average, and no text is in two splits."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from tasks.datasets import split
from tasks.datasets.split import by_hash, content_hash, contiguous, cut_missing

ROWS = st.lists(st.lists(st.text(max_size=4), max_size=5), max_size=30)
MASK = 2**64 - 1


def lists(rows):
    return pa.array(rows, pa.list_(pa.string()))


def table(rows):
    return pa.table({"tokens": lists(rows), "row": pa.array(range(len(rows)), pa.int64())})


def reference(row: list[str]) -> int:
    """Compute `content_hash` of one row, byte by byte."""
    data = "".join(row).encode()
    mixed = 0xC2B2AE3D27D4EB4F * (len(row) + 1)
    for position, byte in enumerate(data):
        mixed += (byte + 1) * pow(0x9E3779B97F4A7C15, position + 1, 2**64)
    mixed &= MASK
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & MASK
    return mixed ^ (mixed >> 31)


@given(ROWS, st.integers(1, 7))
def test_hash_equals_the_slow_one_in_blocks_of_any_size(rows, block):
    before, split.BLOCK_ROWS = split.BLOCK_ROWS, block
    try:
        assert content_hash(lists(rows)).tolist() == [reference(row) for row in rows]
    finally:
        split.BLOCK_ROWS = before


@given(ROWS, ROWS, st.randoms())
def test_assignment_depends_on_the_text_alone(rows, others, random):
    fractions = {"valid": 0.3, "test": 0.3}
    before = dict(zip(map(tuple, rows), by_hash(lists(rows), fractions).tolist(), strict=True))
    mixed = rows + others
    random.shuffle(mixed)
    after = dict(zip(map(tuple, mixed), by_hash(lists(mixed), fractions).tolist(), strict=True))
    assert {row: after[row] for row in before} == before


def test_shares_and_the_independence_of_test_from_valid():
    rows = lists([[f"word{number}", str(number % 7)] for number in range(20_000)])
    assigned = by_hash(rows, {"valid": 0.1, "test": 0.2})
    assert np.mean(assigned == "valid") == pytest.approx(0.1, abs=0.01)
    assert np.mean(assigned == "test") == pytest.approx(0.2, abs=0.01)
    more = by_hash(rows, {"valid": 0.3, "test": 0.2})
    assert ((assigned == "test") == (more == "test")).all()
    assert (more[assigned == "valid"] == "valid").all()


def test_hashes_of_near_texts_differ():
    rows = [["ab"], ["a", "b"], ["ba"], ["b", "a"], [], [""], ["", ""], ["\0"], ["\0\0"]]
    assert len(set(content_hash(lists(rows)).tolist())) == len(rows)


@given(ROWS.filter(len), st.sampled_from([(0.1, 0.1), (0.5, 0.0), (0.0, 0.25), (0.3, 0.6)]))
def test_contiguous_is_a_prefix_a_middle_and_a_suffix(rows, fractions):
    valid, test = fractions
    wanted = {name: share for name, share in (("valid", valid), ("test", test)) if share}
    assigned = contiguous(lists(rows), wanted).tolist()
    order = {"train": 0, "valid": 1, "test": 2}
    assert [order[name] for name in assigned] == sorted(order[name] for name in assigned)
    assert set(assigned) <= {"train", *wanted}


def test_contiguous_shares_are_exact_where_lines_allow():
    assigned = contiguous(lists([["a"]] * 100), {"valid": 0.05, "test": 0.05})
    assert [int((assigned == name).sum()) for name in ("train", "valid", "test")] == [90, 5, 5]


def test_cut_keeps_given_splits_all_rows_and_order():
    rows = [[str(number)] for number in range(300)]
    given_test = table([["mine"]])
    splits = cut_missing({"train": table(rows), "test": given_test}, "hash", 0.2, 0.2, "d")
    assert list(splits) == ["train", "valid", "test"]
    assert splits["test"] is given_test
    actual = [splits[name]["row"].to_pylist() for name in ("train", "valid")]
    assert all(some == sorted(some) for some in actual)
    assert sorted(actual[0] + actual[1]) == list(range(300))
    assert list(cut_missing({"train": table(rows)}, "hash", 0.0, 0.0, "d")) == ["train"]


def test_cuts_that_leave_nothing_are_errors():
    with pytest.raises(HydromelError, match=r"dataset=d: .*leaves no training set"):
        cut_missing({"train": table([["a"]])}, "hash", 0.5, 0.5, "d")
    some = table([["a"], ["a"]]).replace_schema_metadata({b"path": b"/x/file.txt"})
    with pytest.raises(HydromelError, match=r"^/x/file\.txt: cutting .* from 2 examples leaves (train|valid) without"):
        cut_missing({"train": some}, "hash", 0.5, 0.0, "d")
