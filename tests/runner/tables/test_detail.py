"""Detail tables: pairs are counted as a loop counts them, and a record names the file of every large table."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common.errors import HydromelError
from runner.tables import detail
from runner.tables.detail import (
    MOST_ROWS,
    PAIRS,
    SCORES,
    as_rows,
    most_confused,
    pair_table,
    read_table,
    set_apart,
    without_tables,
)

MANY = 100_000


def pairs(count: int, text: str = "") -> pa.Table:
    names = [f"{text}{number}" for number in range(count)]
    return pa.table([names, names[::-1], list(range(count))], schema=PAIRS)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_pairs_are_counted_as_by_a_loop(ids: list[tuple[int, int]]) -> None:
    gold, predicted = (np.array([pair[side] for pair in ids], dtype=np.int64) for side in (0, 1))
    table = pair_table("abcde", gold, predicted)
    expected = Counter(("abcde"[row], "abcde"[column]) for row, column in ids)
    rows = table.to_pylist()
    assert [(row["gold"], row["predicted"]) for row in rows] == sorted(expected)
    assert {(row["gold"], row["predicted"]): row["count"] for row in rows} == expected
    wrong = {pair: count for pair, count in expected.items() if pair[0] != pair[1]}
    confused = most_confused(table, 2).to_pylist()
    assert [row["count"] for row in confused] == sorted(wrong.values(), reverse=True)[:2]
    assert all(wrong[row["gold"], row["predicted"]] == row["count"] for row in confused)


def test_small_tables_stay_in_the_record_and_large_ones_get_a_file(tmp_path: Path) -> None:
    content = {
        "accuracy": 50.0,
        "confusion": pairs(3),
        "nested": {"few": pairs(MOST_ROWS), "many": pairs(MOST_ROWS + 1)},
        "long": pairs(2, "x" * 100_000),
        "../away": pairs(MOST_ROWS + 1),
        "calibration": {"bins": [{"count": 1}]},
    }
    record: dict[str, Any] = json.loads(json.dumps(set_apart(content, tmp_path, "test")))
    assert record["confusion"] == content["confusion"].to_pylist()
    assert record["nested"]["few"] == content["nested"]["few"].to_pylist()
    assert record["nested"]["many"] == {"file": "tables/test_nested_many.parquet", "rows": MOST_ROWS + 1}
    assert record["long"]["rows"] == 2
    assert (record["accuracy"], record["calibration"]) == (50.0, {"bins": [{"count": 1}]})
    assert {path.parent for path in tmp_path.rglob("*.parquet")} == {tmp_path / "tables"}
    for name, table in (("few", content["nested"]["few"]), ("many", content["nested"]["many"])):
        assert read_table(record["nested"][name], tmp_path, PAIRS) == table
    assert pq.read_table(tmp_path / record["nested"]["many"]["file"]) == content["nested"]["many"]
    assert without_tables(content) == {"accuracy": 50.0, "nested": {}, "calibration": content["calibration"]}
    assert as_rows(content)["nested"]["many"] == content["nested"]["many"].to_pylist()


def test_a_record_of_any_number_of_labels_is_small(tmp_path: Path) -> None:
    scores = pa.table(
        [[f"label {n}" for n in range(MANY)], *[np.ones(MANY)] * 3, np.ones(MANY, np.int64)], schema=SCORES
    )
    record = set_apart({"per_class": scores, "confusion": pairs(MANY)}, tmp_path, "test")
    assert len(json.dumps(record)) < 200
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.parquet")) < 2**24
    assert read_table(record["per_class"], tmp_path, SCORES) == scores
    most = set_apart({f"table{n}": pairs(MOST_ROWS, "x" * 60) for n in range(6)}, tmp_path)
    assert len(json.dumps(most, indent=2)) < 10**6


@pytest.mark.parametrize("value", [None, 1, {"labels": ["a"], "counts": [[1]]}, [1], [["a", "b", 1]], [{"gold": 1}]])
def test_what_is_no_table_is_left_out(value: object, tmp_path: Path) -> None:
    assert read_table(value, tmp_path, PAIRS) is None


def test_files_of_strangers_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record: dict[str, Any] = set_apart({"t": pairs(MOST_ROWS + 1)}, tmp_path)
    path = tmp_path / record["t"]["file"]
    content = path.read_bytes()

    def refused(match: str) -> None:
        with pytest.raises(HydromelError, match=match) as error:
            read_table({"file": f"../../{path.name}", "rows": 1}, tmp_path, PAIRS)  # the folder is always tables/
        assert "\n" not in str(error.value)

    path.write_bytes(content[: len(content) // 2])
    refused("is damaged")
    pq.write_table(pairs(9), path, compression="gzip")
    refused("compressed")
    pq.write_table(pa.table({"gold": ["a"]}), path)
    refused("is damaged|compressed")
    path.write_bytes(content)
    monkeypatch.setattr(detail, "MOST_TABLE_ROWS", 100)
    refused("more than 100 rows")
    monkeypatch.setattr(detail, "MOST_TABLE_ROWS", 4)
    pq.write_table(pa.table([["a"] * 5, ["b"] * 5, [1] * 5], schema=PAIRS), path, compression="none")
    five, one = b"\x16\x0a\x19", b"\x16\x02\x19"  # the number of rows, then the start of a list
    path.write_bytes(path.read_bytes().replace(five, one))
    assert pq.read_metadata(path).num_rows == 1
    refused("more than 4 rows")
    monkeypatch.undo()
    pq.write_table(pa.table([["x" * 1000] * 5000, ["y"] * 5000, [1] * 5000], schema=PAIRS), path, compression="none")
    monkeypatch.setattr(detail, "MOST_TABLE_BYTES", 10**6)
    assert path.stat().st_size < 10**5
    refused("more than 1,000,000 bytes of text")
    path.unlink()
    refused("cannot be read")
