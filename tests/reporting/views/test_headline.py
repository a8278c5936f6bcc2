"""The headline of a report, and tables that leave out columns without figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reporting.comparison import summary
from reporting.runs import find
from reporting.statistics.intervals import Spread
from reporting.views import headline, table_format, tables
from reporting.views.table_format import NONE, Cell, Table, TableColumn


def group_of(folder: Path) -> summary.RunGroup:
    (group,) = summary.groups(
        [item.run for item in find.scan(folder) if item.run], summary.CompareOptions(None, 0.95, 1.0)
    )
    return group


def speeds(folder: Path, write_run: Any, by_strategy: dict[str, list[float]], **f1: list[float]) -> str:
    """Return the headline of runs with these speeds, seed by seed, and this f1."""
    for strategy, values in by_strategy.items():
        for seed, value in enumerate(values, start=1):
            quality = f1.get(strategy, [40.0, 41.0, 42.5])[seed - 1]
            change = {"speed.real_tokens_per_s": value}
            write_run(folder / f"{strategy}-{seed}", strategy, seed, f1=quality, change=change)
    return headline.conclusion(group_of(folder), 0.95)


def test_the_fastest_that_costs_nothing(tmp_path: Path, write_run: Any) -> None:
    output = speeds(tmp_path, write_run, {"padmask": [100.0, 110.0, 105.0], "packed": [200.0, 222.0, 209.0]})
    assert output.startswith(
        "packed is fastest, 209 real tokens/s: 2.00 times as fast as padmask (1.97 to 2.04); "
        "its f1 on test equals padmask's."
    )


def test_no_fastest_is_named_while_the_ratio_may_be_1(tmp_path: Path, write_run: Any) -> None:
    output = speeds(
        tmp_path,
        write_run,
        {"padmask": [100.0, 110.0, 90.0], "bucketed": [130.0, 104.0, 95.0], "unmasked": [999.0, 999.0, 999.0]},
        bucketed=[39.0, 43.0, 41.0],
    )
    assert output.startswith(
        "bucketed and padmask do not differ significantly in speed, 104 and 100 real tokens/s; "
        "whether bucketed's f1 on test differs from padmask's is undecided ("
    )
    assert "fastest" not in output
    assert "unmasked" not in output


def test_one_run_of_each_has_no_winner(tmp_path: Path, write_run: Any) -> None:
    output = speeds(tmp_path, write_run, {"padmask": [100.0], "packed": [200.0], "bucketed": [150.0]})
    assert output.startswith(
        "packed read most, 200 real tokens/s: 2.00 times as fast as padmask (one pair of runs, so it may be chance)"
    )


def test_a_lead_over_padmask_is_none_over_the_second(tmp_path: Path, write_run: Any) -> None:
    output = speeds(
        tmp_path,
        write_run,
        {"padmask": [100.0, 101.0, 102.0], "packed": [203.0, 200.0, 204.0], "bucketed": [200.0, 203.0, 202.0]},
        bucketed=[30.0, 31.01, 32.5],
    )
    assert output.startswith("packed and bucketed do not differ significantly in speed, 203 and 202 real tokens/s: ")
    assert output.endswith(
        "; packed's f1 on test equals padmask's; bucketed's f1 on test against padmask's: worse (-10.00)."
    )


def test_strategies_that_are_not_worse_may_be_level_too(tmp_path: Path, write_run: Any) -> None:
    output = speeds(
        tmp_path,
        write_run,
        {"padmask": [100.0, 101.0, 102.0], "packed": [102.0, 100.0, 103.0], "bucketed": [200.0, 202.0, 204.0]},
        bucketed=[30.0, 31.01, 32.5],
    )
    first, second = output.split(" Of the strategies that are not worse, ")
    assert first.startswith("bucketed is fastest, 202 real tokens/s: 2.00 times")
    assert second.startswith("packed and padmask do not differ significantly in speed, 102 and 101 real tokens/s;")


def test_speed_that_costs_quality_names_the_fastest_that_does_not(tmp_path: Path, write_run: Any) -> None:
    output = speeds(
        tmp_path,
        write_run,
        {"padmask": [100.0, 101.0, 102.0], "packed": [150.0, 151.0, 153.0], "bucketed": [200.0, 202.0, 204.0]},
        bucketed=[30.0, 31.01, 32.5],
    )
    first, second = output.split(" Of the strategies that are not worse, ")
    assert first.startswith("bucketed is fastest, 202 real tokens/s: 2.00 times")
    assert first.endswith("its f1 on test against padmask's: worse (-10.00).")
    assert second.startswith("packed is fastest, 151 real tokens/s; its f1 on test equals padmask's")


def test_padmask_is_compared_with_the_next(tmp_path: Path, write_run: Any) -> None:
    output = speeds(tmp_path, write_run, {"padmask": [200.0, 202.0, 204.0], "size1": [10.0, 10.1, 10.2]})
    assert output == "padmask is fastest, 202 real tokens/s: 20.0 times as fast as size1 (20.0 to 20.0)."


@pytest.mark.parametrize(
    ("strategies", "expected"),
    [
        (["packed"], "packed read 11,220 real tokens/s. f1 on test: packed 41.00."),
        (["packed", "padmask"], "Speeds cannot be compared here. f1 on test: padmask 41.00, packed 41.00."),
    ],
)
def test_a_single_strategy_and_several_machines(
    tmp_path: Path, write_run: Any, strategies: list[str], expected: str
) -> None:
    for strategy in strategies:
        write_run(tmp_path / strategy, strategy, 1, change={"provenance.host": strategy})
    assert headline.conclusion(group_of(tmp_path), 0.95) == expected


def test_auto_says_what_it_chose(tmp_path: Path, write_run: Any) -> None:
    advice = {"chosen": "packed", "batch_size": 20, "candidates": []}
    write_run(tmp_path / "a", "padmask", 1)
    write_run(tmp_path / "b", "auto", 1, change={"advice": advice, "speed.real_tokens_per_s": 1e6})
    group = group_of(tmp_path)
    said = headline.conclusion(group, 0.95)
    assert said.startswith("auto (which chose packed) read most, 1,000,000 real tokens/s: ")
    assert " (one pair of runs, so it may be chance)" in said
    assert [row[0] for row in tables.tables(group, 0.95)[0].rows][:2] == [Cell("padmask"), Cell("auto", "chose packed")]


def test_columns_without_a_figure_are_left_out() -> None:
    columns = [TableColumn(name, "", lambda _: Cell("")) for name in "abc"]
    table = Table(
        "T", columns, [[Cell("x"), Cell(NONE), Cell(NONE)], [Cell("y"), Cell(NONE), Cell(NONE, "0 of 3 runs")]]
    )
    assert [column.header for column in table_format.without_empty(table).columns] == ["a", "c"]
    assert table_format.without_empty(table).rows[1] == [Cell("y"), Cell(NONE, "0 of 3 runs")]


def test_memory_says_which_batch_and_halved_runs_are_told(tmp_path: Path, write_run: Any) -> None:
    change = {
        "memory.peak_batch": {"rows": 50, "width": 1234, "tokens": 40000},
        "memory.micro_batch": {"asked": None, "used": 16, "halved_at": [3]},
        "energy": {"joules_per_thousand_tokens": 1.25},
    }
    write_run(tmp_path / "a", "padmask", 1, change=change)
    group = group_of(tmp_path)
    shown = {table.title: table for table in tables.tables(group, 0.95)}
    assert list(shown) == ["Quality", "Speed", "Padding and memory", "Device"]
    assert Cell("50 × 1,234", "40,000 tokens") in shown["Padding and memory"].rows[0]
    assert Cell("1.2") in shown["Device"].rows[0]
    assert any("ran out of memory" in note for note in tables.notes(group))


def test_a_range_that_reads_as_one_figure_is_none() -> None:
    assert table_format.spread(Spread(2, 494.3, 494.2, 494.4), table_format.whole) == Cell("494")
    assert table_format.spread(Spread(2, 494.3, 493.2, 494.4), table_format.whole) == Cell("494", "493–494")


def test_small_figures_do_not_look_like_none() -> None:
    assert [table_format.percent(share) for share in (0.0, 0.0004, 0.05, None)] == ["0.0", "0.04", "5.0", NONE]
    assert [table_format.seconds(value) for value in (0.147, 1.26, 1234.5)] == ["0.15", "1.3", "1,234.5"]


def test_ratios_keep_what_is_small() -> None:
    values = {0.0001: "<0.001", 0.0042: "0.004", 0.128: "0.13", 1.5: "1.50", 12.34: "12.3", 4388.2: "4,388"}
    assert [table_format.times(value) for value in values] == list(values.values())
