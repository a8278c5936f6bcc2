"""Where the runs compared were logged to MLflow, and by which filter they are found there. Does not import mlflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reporting.runs.mlflow_download import PREFIX
from reporting.runs.run import Found, Run
from runner.common.class_names import stable_name
from runner.common.errors import HydromelError
from runner.common.run_schema import RESOLVED, RUN, TAG_RUN_ID, TAG_SWEEP
from runner.tracking.mlflow_store import SQLITE, sqlite_path

TRACKER = "MlflowTracker"


@dataclass(frozen=True)
class Place:
    """A store and an experiment in it. The URI of a sqlite file has an absolute path."""

    uri: str
    experiment: str


def place_of(what: Sequence[str], found: Sequence[Found], tracking_uri: str | None) -> Place | None:
    """Where the newest of the runs was logged; None if it was not logged to MLflow.

    Args:
        what: what was asked for; `mlflow:EXPERIMENT` says it.
        found: the runs.
        tracking_uri: of the store, where it is not the run's own.

    Raises:
        HydromelError: a relative path of a run that was started in a directory that is not here.
    """
    asked = next((name.removeprefix(PREFIX) for name in what if name.startswith(PREFIX)), None)
    if asked and tracking_uri:
        return Place(_absolute(tracking_uri, Path.cwd()), asked)
    newest = max((item for item in found if item.run), key=lambda item: item.run.created if item.run else 0.0)
    tracker = _section(newest.folder, RESOLVED, "tracker")
    if stable_name(str(tracker.get("_target_"))) != TRACKER:
        return None
    experiment = str(tracker.get("experiment"))
    if tracking_uri:
        return Place(_absolute(tracking_uri, Path.cwd()), experiment)
    return Place(_absolute(str(tracker.get("uri")), _started_in(newest.folder)), experiment)


def filter_of(found: Sequence[Found]) -> str:
    """What only the runs compared fit, as far as one condition of MLflow's search can say it: no list is allowed there.

    Their sweep, else their experiment of Hydromel, else their configuration, else all runs that Hydromel trained.
    """
    runs = [item for item in found if item.run]
    for tag, values in (
        (TAG_SWEEP, {item.sweep_id for item in runs}),
        ("experiment", {item.experiment for item in runs}),
        ("comparison_hash", {_hash(item.run) for item in runs if item.run}),
    ):
        if len(values) == 1 and (value := next(iter(values))) and "'" not in value:
            return f"tags.`{tag}` = '{value}'"
    return f"tags.`{TAG_RUN_ID}` IS NOT NULL"


def _hash(run: Run) -> str:
    return run.text("provenance.comparison_hash")


def _started_in(folder: Path) -> Path:
    """The directory that a run's relative paths are meant from."""
    about = _section(folder, RUN, None)
    return Path(str(about.get("cwd") or "."))


def _section(folder: Path, name: str, key: str | None) -> dict[str, Any]:
    """An object in a run's file (JSON is YAML); empty where there is none."""
    try:
        value = yaml.load((folder / name).read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    value = value.get(key) if key and isinstance(value, dict) else value
    return value if isinstance(value, dict) else {}


def _absolute(uri: str, folder: Path) -> str:
    if not uri.startswith(SQLITE):
        return uri
    written = sqlite_path(uri)
    if not folder.is_dir() and not Path(written).is_absolute():
        raise HydromelError(f"the runs were started in {folder}, which is not here; give --tracking-uri")
    return SQLITE + str(folder.absolute() / written) + uri.removeprefix(SQLITE + written)
