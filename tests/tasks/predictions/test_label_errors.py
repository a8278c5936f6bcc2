"""The listing of a classifier's errors: what is listed, in which order, and how text is shown."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.common import run_schema
from tasks.predictions import label_errors
from tasks.predictions.label_errors import LabelErrors
from tests.helpers.composed import label_files, run

ROW = st.tuples(st.integers(-1, 4), st.integers(0, 4), st.integers(0, 100))


def listing(rows: list[tuple[int, int, int]], labels: tuple[str, ...] = tuple("abcde"), **columns: object) -> str:
    gold, predicted, percent = (np.array(column) for column in zip(*rows, strict=True))
    table = pa.table(columns or {"tokens": [[f"t{row}"] for row in range(len(rows))]})
    return LabelErrors(labels, gold, predicted, (percent / 100).astype(np.float32), table).text()


@given(st.lists(ROW, min_size=1, max_size=60), st.integers(1, 4), st.integers(1, 3))
def test_kinds_and_errors_are_those_of_a_loop(rows: list[tuple[int, int, int]], most_kinds: int, shown: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_errors, "MOST_KINDS", most_kinds)
        patch.setattr(label_errors, "SHOWN", shown)
        text = listing(rows)
    of_kind: dict[tuple[int, int], list[int]] = {}
    for number in sorted(range(len(rows)), key=lambda number: -rows[number][2]):
        gold, predicted, _ = rows[number]
        if gold not in (-1, predicted):
            of_kind.setdefault((gold, predicted), []).append(number)
    expected = []
    order = sorted(of_kind, key=lambda kind: (-len(of_kind[kind]), -rows[of_kind[kind][0]][2], kind))
    for kind in order[:most_kinds]:
        part = f", {shown} of them shown" if len(of_kind[kind]) > shown else ""
        expected.append(f"== {'abcde'[kind[0]]} -> {'abcde'[kind[1]]}: {len(of_kind[kind])}{part} ==")
        expected += [f"row {number + 1}  {rows[number][2] / 100:.4f}" for number in of_kind[kind][:shown]]
    actual = [line for line in text.split("\n") if line.startswith(("==", "row "))]
    assert actual == expected
    wrong, labelled = sum(map(len, of_kind.values())), sum(gold >= 0 for gold, *_ in rows)
    assert text.startswith(f"{wrong} of {labelled} rows are wrong ({100 * wrong / max(1, labelled):.2f} %)")
    assert (f", in {len(order)} kinds" in text) == bool(order)
    assert (f"of which {most_kinds} are listed" in text) == (len(order) > most_kinds)


def test_texts_are_cut_and_command_no_terminal() -> None:
    text = listing(
        [(0, 1, 99), (1, 0, 98)],
        labels=("a\tb\n\x1b[2J", "c" * 1000),
        tokens=[["x\x1b]0;title\x07", "line\nend"], ["word"] * 1000],
        tokens_b=[[], ["second"]],
    )
    assert "\x1b" not in text
    assert f"== a\\tb\\n\N{REPLACEMENT CHARACTER}[2J -> {'c' * 100}...: 1 ==" in text
    assert "line\\nend" in text
    assert f"  text    {('word ' * 100)[:300]}...\n  text b  second\n" in text


def test_a_run_lists_its_errors(tmp_path: Path) -> None:
    result = run(tmp_path / "run", *label_files(tmp_path), "encoder=bow", "embedding.size=4", "train.max_updates=1")
    folder = tmp_path / "run" / run_schema.PREDICTIONS
    rows = [line.split("\t") for line in (folder / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    wrong = Counter((gold, predicted) for gold, predicted, *_ in rows if gold != predicted)
    text = (folder / "errors.txt").read_text(encoding="utf-8")
    share = 100 - result["metrics"]["test"]["accuracy"]
    assert text.startswith(f"{wrong.total()} of {len(rows)} rows are wrong ({share:.2f} %)")
    assert [line.split(": ")[0] for line in text.splitlines() if line.startswith("==")] == [
        f"== {gold} -> {predicted}" for (gold, predicted), _ in wrong.most_common()
    ]
    assert all(place in text for gold, predicted, _, place in rows if gold != predicted) or wrong.total() > 20
