"""The MLflow store and experiment of the compared runs, and a filter that finds them. Does not import mlflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from reporting.runs.mlflow_download import PREFIX
from reporting.runs.run import FoundRun
from runner.common.class_names import stable_name
from runner.common.errors import HydromelError
from runner.common.run_schema import RESOLVED, RUN, TAG_RUN_ID, TAG_SWEEP
from runner.tracking.mlflow_store import SQLITE, sqlite_path

TRACKER = "MlflowTracker"


@dataclass(frozen=True)
class MlflowLocation:
    """A store and an experiment in it. The URI of an SQLite file has an absolute path."""

    uri: str
    experiment: str


def location_of(what: Sequence[str], found_runs: Sequence[FoundRun], tracking_uri: str | None) -> MlflowLocation | None:
    """Return where the newest of the runs was logged; None if it was not logged to MLflow.

    `mlflow:EXPERIMENT` in `what`, the names on the command line, determines the experiment, and `tracking_uri` the
    store; else both are those in the run's config. Raises HydromelError if the run's store has a relative path, and the
    directory it was started in does not exist here.
    """
    experiment = next((name.removeprefix(PREFIX) for name in what if name.startswith(PREFIX)), None)
    if experiment and tracking_uri:
        return MlflowLocation(_absolute(tracking_uri, Path.cwd()), experiment)
    newest = max((item for item in found_runs if item.run), key=lambda item: item.run.created if item.run else 0.0)
    tracker = _section(newest.folder, RESOLVED, "tracker")
    if stable_name(str(tracker.get("_target_"))) != TRACKER:
        return None
    experiment = str(tracker.get("experiment"))
    if tracking_uri:
        return MlflowLocation(_absolute(tracking_uri, Path.cwd()), experiment)
    started_in = Path(str(_section(newest.folder, RUN, None).get("cwd") or "."))
    return MlflowLocation(_absolute(str(tracker.get("uri")), started_in), experiment)


def filter_of(found_runs: Sequence[FoundRun]) -> str:
    """Return a filter for the compared runs, as narrow as one condition of MLflow's search can be: it allows no lists.

    It is by their sweep, else by their experiment of Hydromel, else by their configuration, else all runs that
    Hydromel trained.
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
        value = yaml.load((folder / name).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
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
