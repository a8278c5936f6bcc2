"""Plots of a search: they show the values in search.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reporting.plots.search import SearchPlots, history, importance


def search(**changed: Any) -> dict[str, Any]:
    trials = [
        {"number": 0, "ended": "finished", "value": 50.0, "evaluations": [40.0, 50.0]},
        {"number": 1, "ended": "pruned", "value": None, "evaluations": [30.0]},
        {"number": 2, "ended": "failed", "value": None, "evaluations": []},
        {"number": 4, "ended": "finished", "value": 45.0, "evaluations": [45.0]},
        {"number": 5, "ended": "finished", "value": 60.0, "evaluations": [55.0, 60.0]},
    ]
    shares = {"optimizer.lr": 0.75, "encoder": 0.25}
    return {"metric": "f1", "higher_is_better": True, "trials": trials, "importance": shares, **changed}


@pytest.mark.parametrize(("higher", "best"), [(True, [50.0, 50.0, 60.0]), (False, [50.0, 45.0, 45.0])])
def test_the_history_has_every_trial_and_the_best_so_far(higher: bool, best: list[float]) -> None:
    figure = history(search(higher_is_better=higher))
    assert figure is not None
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert list(lines["best so far"].get_ydata()) == best
    assert list(lines["finished"].get_xdata()) == [0, 4, 5]
    assert list(lines["ended early (last figure)"].get_ydata()) == [30.0]
    assert list(lines["failed"].get_xdata()) == [2]


def test_importance_has_the_greatest_on_top() -> None:
    figure = importance(search())
    assert figure is not None
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["encoder", "optimizer.lr"]
    assert [bar.get_width() for bar in axes.patches] == [25.0, 75.0]


def test_what_there_is_nothing_to_draw_for_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text(json.dumps(search()), encoding="utf-8")
    assert SearchPlots().draw(tmp_path) == [tmp_path / "history.png", tmp_path / "importance.png"]
    (tmp_path / "search.json").write_text(json.dumps(search(importance=None)), encoding="utf-8")
    assert SearchPlots().draw(tmp_path) == [tmp_path / "history.png"]
    assert not (tmp_path / "importance.png").exists()  # the older plot is removed
    (tmp_path / "search.json").write_text(json.dumps(search(importance=None, trials=[])), encoding="utf-8")
    assert SearchPlots().draw(tmp_path) == []
