"""Plots show every strategy under its name and in its own colour, whichever others are in the plot."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reporting.comparison import summary
from reporting.plots import comparison, style
from reporting.runs import find
from reporting.runs.run import Evaluation


def group_of(folder: Path) -> summary.RunGroup:
    (group,) = summary.groups(
        [item.run for item in find.scan(folder) if item.run], summary.CompareOptions(None, 0.95, 1.0)
    )
    return group


def test_strategies_keep_their_colours(sweep: Path, tmp_path: Path, write_run: Any) -> None:
    write_run(tmp_path / "few" / "a", "packed", 1)
    write_run(tmp_path / "few" / "b", "auto", 1)
    for folder, expected in ((sweep, ["size1", "bucketed", "padmask", "packed"]), (tmp_path / "few", ["packed"])):
        drawn = {plot.name: plot for plot in comparison.plots(group_of(folder), True)}
        assert list(drawn) == ["quality", "throughput", "quality_speed", "padding", "memory"]
        for plot in drawn.values():
            assert plot.png.startswith(b"\x89PNG")
            ET.fromstring(plot.svg)
            assert style.INK not in plot.svg
            assert set(re.findall(r"https?://[^/]+", plot.svg)) == {"http://www.w3.org"}  # its namespaces
        for name in expected:
            assert f">{name}<" in drawn["quality"].svg
            assert style.STYLES[name][0].lower() in drawn["quality"].svg
            assert style.STYLES[name][0].lower() in drawn["throughput"].svg
    assert len({colour for colour, _, _ in (*style.STYLES.values(), *style.OTHER)}) == len(style.STYLES) + len(
        style.OTHER
    )


def test_nothing_measured_nothing_drawn(tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "r" / "a", "packed", 1, change=dict.fromkeys(("speed", "padding", "memory")))
    (folder / "metrics.jsonl").unlink()
    assert comparison.plots(group_of(tmp_path / "r"), True) == []


def test_names_with_mathematics_and_many_of_them_are_drawn(tmp_path: Path, write_run: Any) -> None:
    for at, name in enumerate(["$x_", "a&b<c>", "c", "d", "e"]):
        write_run(tmp_path / "r" / str(at), name, 1)
    drawn = comparison.plots(group_of(tmp_path / "r"), False)
    for plot in drawn:
        ET.fromstring(plot.svg)
    assert "a&amp;b&lt;c&gt;" in drawn[0].svg
    assert "$x_" in drawn[0].svg


def test_a_plot_that_cannot_be_drawn_is_a_warning(
    tmp_path: Path, write_run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_run(tmp_path / "a", "packed", 1, change={"seconds.forward": 1e308, "seconds.backward": 1e308})
    drawn = {plot.name for plot in comparison.plots(group_of(tmp_path), False)}
    assert "throughput" in drawn
    assert "seconds" not in drawn
    assert "the plot 'seconds' was not drawn: " in caplog.text


def test_names_of_any_length_are_cut(tmp_path: Path, write_run: Any) -> None:
    write_run(tmp_path / "a", "x" * 100_000, 1, change={"quality.unit": "u" * 100_000})
    assert all(
        "x" * 100 not in plot.svg and "u" * 100 not in plot.svg for plot in comparison.plots(group_of(tmp_path), False)
    )


def test_a_strategy_that_no_list_names_keeps_its_style_in_other_comparisons() -> None:
    named = [SimpleNamespace(name=name) for name in ("packed", "short_first", "long_first")]
    own, few = style.style(named[1], named), style.style(named[1], named[:2])
    assert own == few != style.style(named[2], named)
    many = [SimpleNamespace(name=f"own{number}") for number in range(len(style.OTHER))]
    assert {style.style(item, many) for item in many} == set(style.OTHER)
    assert style.style(many[0], [*many, SimpleNamespace(name="zzz")]) in style.OTHER


RECORDS: dict[str, Any] = {
    "seconds": {"startup": 1.0, "data": 2.0, "forward": 20.0, "backward": 40.0, "optimizer": 3.0, "total": 66.0},
    "speed.by_length": [
        {"longest": longest, "updates": 2, "real_tokens": 900, "places": 1200, "seconds": 900 / longest / 10}
        for longest in (16, 32, 64)
    ],
    "characters": {"real": 300, "padded": 100},
    "arithmetic": {"share": 0.375},
    "memory.peak_batch": {"rows": 50, "width": 1234, "tokens": 40000},
}


def test_every_record_is_drawn_with_its_figures(tmp_path: Path, write_run: Any) -> None:
    """The text at the end of a bar gives the shape, or says that nothing was recorded."""
    for seed in (1, 2):
        write_run(tmp_path / "r" / f"a{seed}", "padmask", seed, change=RECORDS)
        bare = dict.fromkeys(("memory", "padding"))
        write_run(tmp_path / "r" / f"b{seed}", "packed", seed, change=bare)
    drawn = {plot.name: plot.svg for plot in comparison.plots(group_of(tmp_path / "r"), False)}
    assert list(drawn) == list(comparison.PLOTS)
    for name, words in (
        ("seconds", ["66 s", "not recorded", "backward", "optimiser"]),
        ("length", ["padmask", ">16<", ">64<"]),
        ("padding", ["25.0 %", "not recorded", "characters in memory"]),
        ("memory", ["514", "50 rows × 1,234", "not recorded"]),
        ("arithmetic", ["37.5 %", "not recorded"]),
    ):
        for word in words:
            assert word in drawn[name], (name, word)


def test_seconds_are_shares_where_the_slowest_would_leave_no_room(tmp_path: Path, write_run: Any) -> None:
    for name, factor in (("size1", 100.0), ("packed", 1.0)):
        seconds = {"startup": 1.0 * factor, "forward": 3.0 * factor}
        write_run(tmp_path / "r" / name, name, 1, change={"seconds": seconds})
    (plot,) = [plot for plot in comparison.plots(group_of(tmp_path / "r"), False) if plot.name == "seconds"]
    for words in ("share of the time (%)", "400 s", "4 s"):
        assert words in plot.svg


def test_less_is_better_points_up(tmp_path: Path, write_run: Any) -> None:
    """In the plot of quality against speed the better of two perplexities is above the worse."""
    for name, value in (("padmask", 100.0), ("packed", 50.0)):
        change = {
            "quality": {"metric": "perplexity", "unit": "", "higher_is_better": False},
            "metrics.test.perplexity": value,
        }
        write_run(tmp_path / "r" / name, name, 1, change=change)
    figure = comparison.quality_speed(group_of(tmp_path / "r"))
    low, high = figure.axes[0].get_ylim()
    assert low > high
    assert not any(
        container.has_xerr or container.has_yerr for container in figure.axes[0].containers
    )  # one run has no interval


def test_the_legend_shows_markers_without_bars_of_error(tmp_path: Path, write_run: Any) -> None:
    for name in ("padmask", "packed"):
        for seed, f1 in enumerate((40.0, 42.0), start=1):
            change = {"speed.real_tokens_per_s": 100.0 * seed}
            write_run(tmp_path / "r" / f"{name}-{seed}", name, seed, f1=f1, change=change)
    figure = comparison.quality_speed(group_of(tmp_path / "r"))
    (legend,) = figure.legends
    assert [handle.get_marker() for handle in legend.legend_handles] == ["o", "v"]  # lines, no containers of bars
    drawn = figure.axes[0].containers
    assert [(item.has_xerr, item.has_yerr) for item in drawn] == [(True, True)] * 2


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(100, 900, [100, 200, 500]), (10_000, 900_000, [10_000, 30_000, 100_000, 300_000]), (1, 2000, [1, 10, 100, 1000])],
)
def test_figures_of_a_logarithmic_axis_stand_apart(low: float, high: float, shown: list[float]) -> None:
    _, axes = style.axes(3)
    axes.set_xlim(low, high)
    style.logarithmic(axes, "x")
    axes.set_xlim(low, high)
    assert [place for place in axes.xaxis.get_majorticklocs() if low <= place <= high] == pytest.approx(shown)


def test_mean_curve_goes_as_far_as_all_seeds() -> None:
    a = (Evaluation(1, 1.0, 10.0, None), Evaluation(2, 2.0, 20.0, None), Evaluation(3, 3.0, 30.0, None))
    b = (Evaluation(1, 3.0, 20.0, None), Evaluation(2, 4.0, 40.0, None))
    assert comparison.mean_curve([a, b]) == [(2.0, 15.0), (3.0, 30.0)]
