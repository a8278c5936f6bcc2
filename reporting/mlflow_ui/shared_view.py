"""Views of MLflow's charts: the state of its page for the compared runs, made here instead of by hand.

MLflow stores a shared view as a tag of the experiment (`runner.compat.mlflow`). The format of the state is that of
MLflow 3.17, read from a view saved by hand; it is not documented. A later version that does not understand a view shows
a message and its default page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RUNS_IN_A_CHART = 500
# (name of a section, number of its charts side by side)
SECTIONS = (("Quality and speed", 2), ("Curves", 2), ("Cost", 2), ("Compared", 2))
State = dict[str, object]  # the state of a page, as JSON
STRATEGY = "batching"  # the tag by which runs are grouped


@dataclass(frozen=True)
class ViewContents:
    """The contents of a view: names of params and metrics of MLflow's runs, and a filter in its search syntax."""

    params: Sequence[str]  # params that differ between runs; their axes come before those of metrics
    quality: Sequence[str]  # metrics on test, such as test/f1
    figures: Sequence[str]  # figures with one value per run, such as speed/real_tokens_per_s
    curves: Sequence[str]  # many values per run: valid/f1, train/loss
    tags: Sequence[str]  # tags that group runs, besides their strategy
    filter: str


def state(contents: ViewContents, by_strategy: bool) -> State:
    """Return the state that shows each strategy as one bar, one point, and a curve with a band.

    With `by_strategy` False it shows each run as a point, and as a line through strategy, settings, quality and speed.
    """
    params = [] if by_strategy else list(contents.params)
    metrics = [*contents.quality, *contents.figures]
    speed = next((name for name in contents.figures if name.startswith("speed/")), None)
    first = [*contents.quality, *([speed] if speed else [])]
    cards = [_card("BAR", 0, metricKey=metric) for metric in first]
    cards += [_card("LINE", 1, **_curve(metric)) for metric in contents.curves]
    cards += [_card("BAR", 2, metricKey=name) for name in contents.figures if name != speed]
    cards += [_card("PARALLEL", 3, selectedParams=params, selectedMetrics=metrics, showAllRuns=False)]
    if speed:
        axes = [{"key": name, "type": "METRIC"} for name in (speed, *contents.quality)]
        cards += [_card("SCATTER", 3, xaxis=axes[0], yaxis=axis) for axis in axes[1:]]
    shown = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    sections = [
        {"uuid": f"section-{place}", "name": name, "columns": columns, **shown}
        for place, (name, columns) in enumerate(SECTIONS)
    ]
    keys = [{"mode": "tag", "groupByData": tag} for tag in (STRATEGY, *contents.tags)]
    return {
        "searchFilter": contents.filter,
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": [{**card, "uuid": f"chart-{place}"} for place, card in enumerate(cards)],
        "compareRunSections": sections,
        "isAccordionReordered": True,  # otherwise the page sorts the sections by name
        "groupBy": {"aggregateFunction": "average", "groupByKeys": keys},
        "useGroupedValuesInCharts": by_strategy,
        "groupsExpanded": {},
        "hideEmptyCharts": True,
        "viewMaximized": False,
        "runListHidden": False,
        "selectedColumns": [],
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _card(kind: str, section: int, **options: object) -> State:
    common = {"type": kind, "metricSectionId": f"section-{section}", "runsCountToCompare": RUNS_IN_A_CHART}
    return {**common, "deleted": False, "isGenerated": False, **options}


def _curve(metric: str) -> State:
    return {
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
