"""Logging of a comparison to MLflow, where its runs are: a run with the report's files, and views of the charts."""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reporting.mlflow_ui import shared_view
from reporting.mlflow_ui.shared_view import ViewContents
from reporting.runs.mlflow_download import PREFIX
from reporting.runs.run import TITLE, FoundRun
from reporting.views import report
from reporting.views.files import slug
from reporting.views.report import ComparisonReport
from runner.common.bounded import read_yaml
from runner.common.class_names import stable_name
from runner.common.errors import HydromelError, without_credentials
from runner.common.run_schema import RESOLVED, RUN, TAG_RUN_ID, TAG_SWEEP
from runner.common.seal import folder_is_made_here
from runner.compat.mlflow import VIEW_TAG, delete_artifacts, view_tag_value
from runner.tracking.mlflow_store import LOCAL_SERVER, SQLITE, one_line, open_store, page, sqlite_path

if TYPE_CHECKING:
    from mlflow.entities import Run as LoggedRun
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)
TRACKER = "MlflowTracker"
TAG_REPORT = "hydromel.report"  # tag of the run that holds a report; its value is the report's key
QUALITY = {"test": "test", "valid": "best"}  # split -> prefix of the metrics of the kept checkpoint
FIGURES = ("speed/real_tokens_per_s", "tokens/padding_share", "memory/peak_bytes")
LONGEST_NOTE = 4500  # characters; MLflow's servers cut tags at 5,000
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class MlflowLocation:
    """A store and an experiment in it. The URI of an SQLite file has an absolute path."""

    uri: str
    experiment: str


def try_to_log(
    comparison: ComparisonReport, found_runs: Sequence[FoundRun], files: Sequence[Path], tracking_uri: str | None
) -> None:
    """Log the report where its runs were logged, and print its address; a failure is a warning of one line.

    The page is first among `files`. `tracking_uri` is the store, if it is not the one in the runs' config.
    """
    location = None
    try:
        location = location_of(comparison.what, found_runs, tracking_uri)
        if location is None:
            return
        link = log_comparison(comparison, files, location, filter_of(found_runs))
    except Exception as error:  # MLflow, a driver or a cloud library may raise anything; the report's files exist
        reason = str(error) if isinstance(error, HydromelError) else one_line(error)
        place = "" if location is None else f" at {without_credentials(location.uri)}"
        log.warning("warning: the report is not in MLflow%s: %s", place, without_credentials(reason))
        return
    log.info("MLflow: %s%s", link, _serving_command(location.uri))


def _serving_command(uri: str) -> str:
    """Return the command that serves a store; empty for the address of a server."""
    if uri.startswith(("http:", "https:")):
        return ""
    if uri == f"{SQLITE}{Path('mlflow.db').absolute()}":
        return " (served by `make ui`)"
    return f" (served by `mlflow server --workers 1 --backend-store-uri '{without_credentials(uri)}'`)"


def log_comparison(
    comparison: ComparisonReport, files: Sequence[Path], location: MlflowLocation, runs_filter: str
) -> str:
    """Log `files` and the views, replacing those of an earlier comparison with the same name; return their address.

    `runs_filter` selects the compared runs, in MLflow's search syntax. Raises HydromelError if there is no such store
    or experiment, or it has none of the runs; errors of mlflow, SQLAlchemy and the operating system are passed on.
    """
    with warnings.catch_warnings(action="ignore"):  # warnings of mlflow about its dependencies
        client = open_store(location.uri, TIMEOUT_S)
        experiment = client.get_experiment_by_name(location.experiment)
        # The report joins the experiment of its runs; it never creates one, as a mistyped store would then look right.
        if experiment is None:
            raise HydromelError(f"there is no experiment '{location.experiment}'; upload its runs with hydromel-sync")
        samples = client.search_runs([experiment.experiment_id], runs_filter, max_results=1)
        if not samples:
            raise HydromelError(
                f"experiment '{location.experiment}' has none of these runs; upload them with hydromel-sync"
            )
        run = _clean_run(client, experiment.experiment_id, comparison, location.uri)
        for file in files:
            client.log_artifact(run.info.run_id, str(file))
        client.set_tag(run.info.run_id, "mlflow.note.content", note(comparison))
        client.set_terminated(run.info.run_id)
        _set_views(client, experiment.experiment_id, comparison, _view_contents(comparison, samples[0], runs_filter))
    return address(location.uri, experiment.experiment_id, key(comparison))


def key(comparison: ComparisonReport) -> str:
    """Return the key under which the comparison is found again: readable, and distinct for each name."""
    name = label(comparison)
    return f"hydromel-{slug(name)[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def label(comparison: ComparisonReport) -> str:
    """Return the name of the comparison: the names on the command line."""
    return ", ".join(comparison.what) or "all runs"


def address(uri: str, experiment_id: str, view: str | None) -> str:
    """Return the address of the page with the charts of an experiment, or with one of its views."""
    server = uri if uri.startswith(("http:", "https:")) else LOCAL_SERVER
    view_of = f"&viewStateShareKey={view}" if view else ""
    return page(server, experiment_id) + view_of


def note(comparison: ComparisonReport) -> str:
    """Return the report in Markdown without plots, cut to the length of a tag."""
    lines = report.to_markdown(comparison, [[] for _ in comparison.groups]).splitlines()
    kept, size = [], 0
    for line in lines:
        size += len(line) + 1
        if size > LONGEST_NOTE:
            kept += ["", "The rest is in index.html, among the artifacts."]
            break
        kept.append(line)
    return "\n".join(kept)


def _view_contents(comparison: ComparisonReport, sample: LoggedRun, runs_filter: str) -> ViewContents:
    """Return the report's params and metrics, only those that a sample run has, so that no chart is empty."""
    metrics = list(dict.fromkeys(group.metric for group in comparison.groups))
    settings = dict.fromkeys(name for group in comparison.groups for name in group.settings)
    logged: Mapping[str, float] = sample.data.metrics
    titles = [group.title.split(" · ") for group in comparison.groups]
    differing = [tag for tag, values in zip(TITLE, zip(*titles, strict=False), strict=False) if len(set(values)) > 1]
    return ViewContents(
        params=["batching", *(name for name in settings if name in sample.data.params)],
        quality=list(dict.fromkeys(f"{QUALITY[group.split]}/{group.metric}" for group in comparison.groups)),
        figures=[name for name in FIGURES if name in logged],
        curves=[*(f"valid/{metric}" for metric in metrics), "train/loss"],
        tags=differing,
        filter=runs_filter,
    )


def _clean_run(client: MlflowClient, experiment_id: str, comparison: ComparisonReport, uri: str) -> LoggedRun:
    """Return the report's run: a new one, or that of an earlier comparison without its files."""
    same_report = f"tags.`{TAG_REPORT}` = '{key(comparison)}'"
    if earlier := client.search_runs([experiment_id], same_report, max_results=1):
        delete_artifacts(earlier[0].info.artifact_uri, uri)
        return earlier[0]
    tags = {TAG_REPORT: key(comparison), "mlflow.source.name": "hydromel-compare", "mlflow.source.type": "LOCAL"}
    return client.create_run(experiment_id, tags=tags, run_name=f"report: {label(comparison)}"[:250])


def _set_views(client: MlflowClient, experiment_id: str, comparison: ComparisonReport, contents: ViewContents) -> None:
    now_ms = int(time.time() * 1000)
    for view, name, state in (
        (f"{key(comparison)}-runs", "every run", shared_view.state(contents, by_strategy=False)),
        (key(comparison), "strategies", shared_view.state(contents, by_strategy=True)),
    ):
        value = view_tag_value(f"{label(comparison)}: {name}", state, now_ms)
        client.set_experiment_tag(experiment_id, VIEW_TAG + view, value)


def location_of(what: Sequence[str], found_runs: Sequence[FoundRun], tracking_uri: str | None) -> MlflowLocation | None:
    """Return where the newest of the runs was logged; None if it was not logged to MLflow.

    `mlflow:EXPERIMENT` in `what`, the names on the command line, determines the experiment, and `tracking_uri` the
    store; else both are those in the run's config. Raises HydromelError if another installation made the run, or its
    store has a relative path, and the directory it was started in does not exist here.
    """
    experiment = next((name.removeprefix(PREFIX) for name in what if name.startswith(PREFIX)), None)
    newest = max((item for item in found_runs if item.run), key=lambda item: item.run.created if item.run else 0.0)
    tracker = _mlflow_in(_section(newest.folder, RESOLVED, "tracker"))
    if not (experiment and tracking_uri):
        if tracker is None:
            return None
        experiment = str(tracker.get("experiment"))
    if tracking_uri:
        return MlflowLocation(_absolute(tracking_uri, Path.cwd()), experiment)
    if not folder_is_made_here(newest.folder):
        raise HydromelError(
            f"another installation made {newest.folder}, so its tracker is not used; give --tracking-uri URI"
        )
    assert tracker is not None
    started_in = Path(str(_section(newest.folder, RUN, None).get("cwd") or "."))
    return MlflowLocation(_absolute(str(tracker.get("uri")), started_in), experiment)


def _mlflow_in(tracker: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the MLflow tracker in a run's config, alone or among several; None if there is none."""
    several = tracker.get("trackers")
    parts = list(several.values()) if isinstance(several, Mapping) else [tracker]
    found = [part for part in parts if isinstance(part, Mapping) and stable_name(str(part.get("_target_"))) == TRACKER]
    return found[0] if found else None


def filter_of(found_runs: Sequence[FoundRun]) -> str:
    """Return a filter for the compared runs, as narrow as one condition of MLflow's search can be: it allows no lists.

    It selects by sweep, else by experiment of Hydromel, else by configuration, else all runs that Hydromel trained.
    """
    runs = [item for item in found_runs if item.run]
    for tag, values in (
        (TAG_SWEEP, {item.sweep_id for item in runs}),
        ("experiment", {item.experiment for item in runs}),
        ("comparison_hash", {item.run.comparison_hash for item in runs if item.run}),
    ):
        if len(values) == 1 and (value := next(iter(values))) and "'" not in value:
            return f"tags.`{tag}` = '{value}'"
    return f"tags.`{TAG_RUN_ID}` IS NOT NULL"


def _section(folder: Path, name: str, key: str | None) -> Mapping[str, object]:
    """Return an object in a run's file (JSON is YAML too); empty if there is none."""
    try:
        value = read_yaml(folder / name)
    except HydromelError:
        return {}
    value = value.get(key) if key and isinstance(value, Mapping) else value
    return value if isinstance(value, Mapping) else {}


def _absolute(uri: str, folder: Path) -> str:
    if not uri.startswith(SQLITE):
        return uri
    # The path was relative to the directory that the run was started in, not to the current one.
    path = sqlite_path(uri)
    if not folder.is_dir() and not Path(path).is_absolute():
        raise HydromelError(
            f"the runs were started in {folder}, which does not exist on this machine; give --tracking-uri"
        )
    return SQLITE + str(folder.absolute() / path) + uri.removeprefix(SQLITE + path)
