"""Cutting missing splits: it is stable, fractions hold on average, and no text is in two splits."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from runner.text.arrow import lengths_of
from runner.text.blocks import Blocks
from tasks.datasets import split
from tasks.datasets.split import GROUP, Keys, by_hash, content_hash

ROWS = st.lists(st.lists(st.text(max_size=4), max_size=5), max_size=30)
MASK = 2**64 - 1


def lists(rows):
    return pa.array(rows, pa.list_(pa.string()))


def cut_missing(tables, *options):
    """Call the function of this name with tables, and return tables."""
    cut = split.cut_missing({name: Blocks([table]) for name, table in tables.items()}, *options)
    return {name: blocks.whole() for name, blocks in cut.items()}


def contiguous(tokens, fractions):
    return split.contiguous(lengths_of(tokens), fractions)


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
    assert splits["test"] == given_test
    actual = [splits[name]["row"].to_pylist() for name in ("train", "valid")]
    assert all(some == sorted(some) for some in actual)
    assert sorted(actual[0] + actual[1]) == list(range(300))
    assert list(cut_missing({"train": table(rows)}, "hash", 0.0, 0.0, "d")) == ["train"]


def test_cuts_that_leave_nothing_are_errors():
    with pytest.raises(HydromelError, match=r"dataset=d: .*leaves no training set"):
        cut_missing({"train": table([["a"]])}, "hash", 0.5, 0.5, "d")
    some = table([["a"], ["a"]]).replace_schema_metadata({b"path": b"/x/file.txt"})
    same = r"with 1 different texts \(the same text is never in two splits\)"
    with pytest.raises(
        HydromelError, match=rf"^/x/file\.txt: cutting .* from 2 examples {same} leaves (train|valid) w"
    ):
        cut_missing({"train": some}, "hash", 0.5, 0.0, "d")
    grouped = table([["a"], ["b"]]).append_column("group", pa.array(["g", "g"]))
    with pytest.raises(HydromelError, match="from 2 examples in 1 groups, which stay whole, leaves"):
        cut_missing({"train": grouped}, "stratified", 0.5, 0.0, "d")
    with pytest.raises(HydromelError, match="from 2 examples leaves"):
        cut_missing({"train": table([["a"], ["b"]])}, "stratified", 0.01, 0.0, "d")


def test_a_number_that_is_missing_among_those_to_predict_is_left_to_the_task():
    rows = [[str(row)] for row in range(60)]
    labels = [str(row + 0.5) if row != 7 else "NaN" for row in range(60)]
    train = table(rows).append_column("label", pa.array(labels))
    splits = cut_missing({"train": train}, "stratified", 0.1, 0.1, "d")
    assert all(4 <= splits[name].num_rows <= 8 for name in ("valid", "test"))


LABELLED = st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcdef"), st.integers(0, 5)), min_size=1, max_size=60)
FRACTIONS = st.sampled_from([(0.1, 0.1), (0.3, 0.3), (0.0, 0.5), (0.4, 0.5), (0.45, 0.0)])


def sides(table, cut, valid, test):
    """Return the split of each row, whose number is in the column `row`; splits may be empty."""
    wanted = {name: share for name, share in (("valid", valid), ("test", test)) if share}
    return split._assigned(Keys.of(Blocks([table])), cut, wanted).tolist()


def units_of(rows, groups):
    """Return the rows of each text or group, in the order of its hash."""
    units = {}
    for place, row in enumerate(rows):
        units.setdefault(reference([f"g{row[2]}"] if groups else [f"t{row[0]}"]), []).append(place)
    return [units[key] for key in sorted(units)]


def slow_stratified(units, labels, valid, test):
    """Return the split of each unit (a list of rows) by the rule, one unit at a time; `labels` are sets, by row."""
    of_unit = [set().union(*(labels[row] for row in unit)) for unit in units]
    count = {label: sum(label in some for some in of_unit) for label in set().union(*of_unit)}
    strata = {}
    for place, some in enumerate(of_unit):
        strata.setdefault(min(some, key=lambda label: (count[label], label), default=""), []).append(place)
    result = {}
    for label, members in strata.items():
        offset = (reference([label]) >> 11) / 2**53
        for rank, place in enumerate(members):
            share = (rank + offset) / len(members)
            result[place] = "test" if share < test else "valid" if share < test + valid else "train"
    without = [label for label in count if not any(result[p] == "train" for p, s in enumerate(of_unit) if label in s)]
    for label in without:
        result[max(place for place, some in enumerate(of_unit) if label in some)] = "train"
    return [result[place] for place in range(len(units))]


@given(LABELLED, FRACTIONS, st.booleans(), st.sampled_from(["label", "labels", "tags"]))
def test_stratified_is_the_rule_one_unit_at_a_time(rows, fractions, groups, column):
    """`(text, label, group)`: texts and groups come with several labels; a row of `labels` has one to three."""
    labels = [
        {"abcdef"[("abcdef".index(label) + n) % 6] for n in range(1 if column == "label" else 1 + text % 3)}
        for text, label, _ in rows
    ]
    columns = {"tokens": lists([[f"t{text}"] for text, *_ in rows])}
    columns[column] = (
        pa.array([label for _, label, _ in rows]) if column == "label" else lists([sorted(some) for some in labels])
    )
    if groups:
        columns[GROUP] = pa.array([f"g{group}" for *_, group in rows])
    actual = sides(pa.table(columns), "stratified", *fractions)
    units = units_of(rows, groups)
    expected = slow_stratified(units, labels, *fractions)
    for unit, side in zip(units, expected, strict=True):
        assert [actual[row] for row in unit] == [side] * len(unit), "a text or a group is in one split"
    learned = set().union(*(some for some, side in zip(labels, actual, strict=True) if side == "train"))
    assert learned == set().union(*labels), "every label is in train"


@given(st.lists(st.sampled_from("aaaaabbbcd"), min_size=1, max_size=80), FRACTIONS, st.randoms())
def test_stratified_depends_on_the_rows_of_its_own_label_alone(labels, fractions, random):
    def assigned(chosen):
        columns = {"tokens": lists([[f"t{row}"] for row in chosen]), "label": pa.array([labels[row] for row in chosen])}
        return dict(zip(chosen, sides(pa.table(columns), "stratified", *fractions), strict=True))

    everything = list(range(len(labels)))
    whole = assigned(everything)
    random.shuffle(everything)
    assert assigned(everything) == whole
    for label in set(labels):
        own = [row for row in everything if labels[row] == label]
        assert assigned(own) == {row: whole[row] for row in own}
        for name, share in zip(("valid", "test"), fractions, strict=True):
            if len(own) * (1 - sum(fractions)) >= 1:  # otherwise train may take one back
                assert abs(sum(whole[row] == name for row in own) - share * len(own)) < 1
    more = dict(
        zip(
            everything,
            sides(
                pa.table(
                    {
                        "tokens": lists([[f"t{row}"] for row in everything]),
                        "label": pa.array([labels[row] for row in everything]),
                    }
                ),
                "stratified",
                0.0,
                fractions[1],
            ),
            strict=True,
        )
    )
    assert {row for row, side in whole.items() if side == "test"} <= {
        row for row, side in more.items() if side == "test"
    }


def test_many_labels_of_few_rows_fill_every_split():
    """The share holds on average over labels, although no label has enough rows for every split."""
    labels = [f"l{row // 3}" for row in range(30_000)]
    cut = sides(
        pa.table({"tokens": lists([[f"t{row}"] for row in range(30_000)]), "label": labels}), "stratified", 0.1, 0.2
    )
    assert np.mean(np.array(cut) == "valid") == pytest.approx(0.1, abs=0.01)
    assert np.mean(np.array(cut) == "test") == pytest.approx(0.2, abs=0.01)
    assert {label for label, side in zip(labels, cut, strict=True) if side == "train"} == set(labels)


def test_numbers_are_stratified_by_tenths_and_text_without_labels_is_hashed():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=1000)
    tokens = lists([[f"t{row}"] for row in range(1000)])
    cut = np.array(sides(pa.table({"tokens": tokens, "value": values}), "stratified", 0.0, 0.2))
    tenths = np.argsort(np.argsort(values)) // 100
    assert {int((cut[tenths == tenth] == "test").sum()) for tenth in range(10)} == {20}
    assert sides(pa.table({"tokens": tokens, "value": np.zeros(1000)}), "stratified", 0.0, 0.2).count("test") == 200
    written = pa.table({"tokens": tokens, "label": [str(value) for value in values.tolist()]})
    assert sides(written, "stratified", 0.0, 0.2) == cut.tolist()
    with pytest.raises(HydromelError, match=r"cut=stratified, which keeps every label in train"):
        cut_missing(
            {"train": written.set_column(1, "label", [[str(n) for n in range(1000)]])}, "stratified", 0.1, 0, "d"
        )
    plain = pa.table({"tokens": tokens})
    assert sides(plain, "stratified", 0.1, 0.1) == sides(plain, "hash", 0.1, 0.1)


@given(LABELLED, FRACTIONS)
def test_groups_stay_together_and_their_column_goes(rows, fractions):
    columns = {"tokens": lists([[f"t{text}"] for text, *_ in rows]), GROUP: [f"g{group}" for *_, group in rows]}
    by_hash_of_group = [[f"g{group}"] for *_, group in rows]
    wanted = {name: share for name, share in zip(("valid", "test"), fractions, strict=True) if share}
    assert sides(pa.table(columns), "hash", *fractions) == by_hash(lists(by_hash_of_group), wanted).tolist()
    plain, grouped = (
        sides(pa.table(some), "contiguous", *fractions) for some in ({"tokens": columns["tokens"]}, columns)
    )
    first = {}
    for side, (*_, group) in zip(plain, rows, strict=True):
        first.setdefault(group, side)
    assert grouped == [first[group] for *_, group in rows]


def test_groups_without_a_cut_are_refused_and_never_reach_a_task():
    table = pa.table(
        {
            "tokens": lists([[str(row)] for row in range(50)]),
            "label": ["a"] * 50,
            GROUP: [str(row) for row in range(50)],
        }
    )
    cut = cut_missing({"train": table, "test": table}, "stratified", 0.2, 0.2, "d")
    assert list(cut) == ["train", "valid", "test"]
    assert all(some.column_names == ["tokens", "label"] for some in cut.values())
    assert (cut["train"].num_rows, cut["valid"].num_rows, cut["test"].num_rows) == (40, 10, 50)
    with pytest.raises(HydromelError, match=r"^dataset=d: groups have no effect, since no split is cut"):
        cut_missing({"train": table, "valid": table, "test": table}, "hash", 0.2, 0.2, "d")
