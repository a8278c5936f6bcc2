"""Plots show every strategy under its name and in its own colour, whatever else is there."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from reporting import plots, runs, summary
from reporting.run import Evaluation


def group_of(folder: Path) -> summary.Group:
    (group,) = summary.groups([item.run for item in runs.scan(folder) if item.run], summary.Asked(None, 0.95, 1.0))
    return group


def test_strategies_keep_their_colours(sweep: Path, tmp_path: Path, write_run: Any) -> None:
    write_run(tmp_path / "few" / "a", "packed", 1)
    write_run(tmp_path / "few" / "b", "auto", 1)
    for folder, expected in ((sweep, ["size1", "bucketed", "padmask", "packed"]), (tmp_path / "few", ["packed"])):
        drawn = {plot.name: plot for plot in plots.plots(group_of(folder))}
        assert list(drawn) == ["quality", "throughput", "padding"]
        for plot in drawn.values():
            assert plot.png.startswith(b"\x89PNG")
            ET.fromstring(plot.svg)
            assert plots.INK not in plot.svg
            assert set(re.findall(r"https?://[^/]+", plot.svg)) == {"http://www.w3.org"}  # its namespaces
        for name in expected:
            assert f">{name}<" in drawn["quality"].svg
            assert plots.STYLES[name][0].lower() in drawn["quality"].svg
            assert plots.STYLES[name][0].lower() in drawn["throughput"].svg
    assert len({colour for colour, _, _ in (*plots.STYLES.values(), *plots.OTHER)}) == len(plots.STYLES) + len(
        plots.OTHER
    )


def test_nothing_measured_nothing_drawn(tmp_path: Path, write_run: Any) -> None:
    folder = write_run(tmp_path / "r" / "a", "packed", 1, change={"speed": None, "padding": None})
    (folder / "metrics.jsonl").unlink()
    assert plots.plots(group_of(tmp_path / "r")) == []


def test_names_with_mathematics_and_many_of_them_are_drawn(tmp_path: Path, write_run: Any) -> None:
    for at, name in enumerate(["$x_", "a&b<c>", "c", "d", "e"]):
        write_run(tmp_path / "r" / str(at), name, 1)
    drawn = plots.plots(group_of(tmp_path / "r"))
    for plot in drawn:
        ET.fromstring(plot.svg)
    assert "a&amp;b&lt;c&gt;" in drawn[0].svg
    assert "$x_" in drawn[0].svg


def test_mean_curve_goes_as_far_as_all_seeds() -> None:
    a = (Evaluation(1, 1.0, 10.0, None), Evaluation(2, 2.0, 20.0, None), Evaluation(3, 3.0, 30.0, None))
    b = (Evaluation(1, 3.0, 20.0, None), Evaluation(2, 4.0, 40.0, None))
    assert plots.mean_curve([a, b]) == [(2.0, 15.0), (3.0, 30.0)]
