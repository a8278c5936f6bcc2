"""The comparison in MLflow, beside the runs compared: a run with the page and its figures, and views of the charts."""

from __future__ import annotations

import hashlib
import re
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reporting.mlflow_ui import shared_view
from reporting.mlflow_ui.locate import Place, filter_of, place_of
from reporting.mlflow_ui.shared_view import Shown
from reporting.runs.run import Found
from reporting.views import report
from reporting.views.files import slug
from reporting.views.report import Report
from runner.common.errors import HydromelError
from runner.tracking.mlflow_store import SQLITE, one_line, open_store, redacted

if TYPE_CHECKING:
    from mlflow.entities import Run as LoggedRun
    from mlflow.tracking import MlflowClient

TAG_REPORT = "hydromel.report"  # of the run that holds a report: its key
QUALITY = {"test": "test", "valid": "best"}  # the section of metrics with the quality of the kept checkpoint
FIGURES = ("speed/tok_s", "pad/fraction", "mem/peak_gib")
LABELS = ("task", "dataset", "embedding", "encoder")  # tags of a run, besides its strategy
LONGEST_NOTE = 4500  # characters; MLflow's servers cut tags at 5,000
SERVER = "http://127.0.0.1:5000"  # where `make ui` serves a file
TIMEOUT_S = 10.0


def offer(made: Report, found: Sequence[Found], files: Sequence[Path], tracking_uri: str | None) -> None:
    """Log the report where its runs were logged, and say where it is; what goes wrong is one line, and no error.

    Args:
        made: the report.
        found: its runs.
        files: its files, the page first.
        tracking_uri: of the store, where it is not the runs' own.
    """
    try:
        place = place_of(made.what, found, tracking_uri)
        if place is None:
            return
        link = log(made, files, place, filter_of(found))
    except Exception as error:  # whatever mlflow, a driver or a cloud's library raises: the report stands all the same
        reason = str(error) if isinstance(error, HydromelError) else one_line(error)
        print(f"warning: the report is not in MLflow: {redacted(reason)}", file=sys.stderr)
        return
    print(f"MLflow: {link}{_served(place.uri)}")


def _served(uri: str) -> str:
    """By which command the address answers; a server's own answers by itself."""
    if uri.startswith(("http:", "https:")):
        return ""
    if uri == f"{SQLITE}{Path('mlflow.db').absolute()}":
        return " (served by `make ui`)"
    return f" (served by `mlflow server --workers 1 --backend-store-uri '{redacted(uri)}'`)"


def log(made: Report, files: Sequence[Path], place: Place, chosen: str) -> str:
    """Put `files` and the views there, in place of an earlier comparison's of the same name; returns their address.

    Args:
        chosen: a filter, in MLflow's language of searches, that lets the runs compared through.

    Raises:
        HydromelError: no such store or experiment, or it has none of the runs.
        Exception: of mlflow, SQLAlchemy or the operating system.
    """
    with warnings.catch_warnings(action="ignore"):  # mlflow's, about its own dependencies
        client = open_store(place.uri, TIMEOUT_S)
        known = client.get_experiment_by_name(place.experiment)
        if known is None:
            raise HydromelError(f"there is no experiment '{place.experiment}'; hydromel-sync delivers runs")
        samples = client.search_runs([known.experiment_id], chosen, max_results=1)
        if not samples:
            raise HydromelError(f"experiment '{place.experiment}' has none of these runs; hydromel-sync delivers them")
        run = _replaced(client, known.experiment_id, made, place.uri)
        for file in files:
            client.log_artifact(run.info.run_id, str(file))
        client.set_tag(run.info.run_id, "mlflow.note.content", note(made))
        client.set_terminated(run.info.run_id)
        _set_views(client, known.experiment_id, made, shown(made, samples[0], chosen))
    return address(place.uri, known.experiment_id, key(made))


def key(made: Report) -> str:
    """By which the comparison is found again: readable, and different for different names."""
    name = label(made)
    return f"hydromel-{slug(name)[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def label(made: Report) -> str:
    return ", ".join(made.what) or "all runs"


def address(uri: str, experiment_id: str, view: str | None) -> str:
    """Of the page with the charts; MLflow opens on another one without all of this."""
    server = uri.rstrip("/") if uri.startswith(("http:", "https:")) else SERVER
    server = re.sub(r"//[^/@\s]*@", "//", server)  # no user and password in what is printed
    page = f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    return f"{page}&viewStateShareKey={view}" if view else page


def note(made: Report) -> str:
    """The report in Markdown without its plots, as far as a tag holds it."""
    lines = report.to_markdown(made, [[] for _ in made.groups]).splitlines()
    kept, size = [], 0
    for line in lines:
        size += len(line) + 1
        if size > LONGEST_NOTE:
            kept += ["", "The rest is in index.html, among the artifacts."]
            break
        kept.append(line)
    return "\n".join(kept)


def shown(made: Report, sample: LoggedRun, chosen: str) -> Shown:
    """What one of the runs has, of what the report is about: a chart of nothing says nothing."""
    metrics = list(dict.fromkeys(group.metric for group in made.groups))
    settings = dict.fromkeys(name for group in made.groups for name in group.settings)
    logged: Mapping[str, Any] = sample.data.metrics
    titles = [group.title.split(" · ") for group in made.groups]
    differing = [tag for tag, values in zip(LABELS, zip(*titles, strict=False), strict=False) if len(set(values)) > 1]
    return Shown(
        params=["batching.name", *(name for name in settings if name in sample.data.params)],
        quality=list(dict.fromkeys(f"{QUALITY[group.split]}/{group.metric}" for group in made.groups)),
        figures=[name for name in FIGURES if name in logged],
        curves=[*(f"valid/{metric}" for metric in metrics), "train/loss"],
        tags=differing,
        filter=chosen,
    )


def _replaced(client: MlflowClient, experiment_id: str, made: Report, uri: str) -> LoggedRun:
    """The report's run, without the files of an earlier comparison."""
    mine = f"tags.`{TAG_REPORT}` = '{key(made)}'"
    if earlier := client.search_runs([experiment_id], mine, max_results=1):
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        kept: Any = get_artifact_repository(earlier[0].info.artifact_uri, tracking_uri=uri)
        kept.delete_artifacts()
        return earlier[0]
    tags = {TAG_REPORT: key(made), "mlflow.source.name": "hydromel-compare", "mlflow.source.type": "LOCAL"}
    return client.create_run(experiment_id, tags=tags, run_name=f"report: {label(made)}"[:250])


def _set_views(client: MlflowClient, experiment_id: str, made: Report, what: Shown) -> None:
    now_ms = int(time.time() * 1000)
    for view, name, state in (
        (f"{key(made)}-runs", f"{label(made)}: every run", shared_view.by_run(what)),
        (key(made), f"{label(made)}: strategies", shared_view.by_strategy(what)),
    ):
        value = shared_view.tag_value(name, state, now_ms)
        client.set_experiment_tag(experiment_id, shared_view.PREFIX + view, value)
