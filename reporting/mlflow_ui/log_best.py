"""Logging of the best of the compared runs as a model in MLflow."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from reporting.mlflow_ui.log_report import TIMEOUT_S, MlflowLocation, location_of
from reporting.runs.run import FoundRun, Run
from runner.common.bounded import check_contents
from runner.common.errors import HydromelError, without_credentials
from runner.common.run_schema import TAG_RUN_ID
from runner.tracking.mlflow_model import log_model, register
from runner.tracking.mlflow_store import one_line, open_store

log = logging.getLogger(__name__)
ALIAS = "best"  # of the registered version


def log_best(what: Sequence[str], found_runs: Sequence[FoundRun], tracking_uri: str | None, name: str | None) -> None:
    """Log the checkpoint of the best run as a model of that run in MLflow, and print its address.

    Args:
        what: the names on the command line, as for `location_of`.
        tracking_uri: the store, if it is not the one in the runs' config.
        name: register the model as a version of this name, with the alias `best`; None: it is not registered.

    Raises:
        HydromelError: the runs cannot be ranked together, were not logged to MLflow, or MLflow failed.
    """
    best = best_of([item.run for item in found_runs if item.run is not None])
    location = location_of(what, found_runs, tracking_uri)
    if location is None:
        raise HydromelError("--log-best: these runs were not logged to MLflow; give --tracking-uri URI of their store")
    check_contents(best.folder)
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings of mlflow about its dependencies
            model_id, version = _log(best, location, name)
    except HydromelError:
        raise
    except Exception as error:  # MLflow, a driver or a cloud library may raise anything
        raise HydromelError(f"--log-best: {without_credentials(one_line(error))}") from error
    registered = "" if version is None else f", registered as models:/{name}@{ALIAS} (version {version})"
    log.info("Model of %s (best %s on valid): models:/%s%s", best.folder, best.metric, model_id, registered)


def best_of(runs: Sequence[Run]) -> Run:
    """Return the run with the best quality on the validation set, at its best checkpoint; ties: the earliest.

    Raises:
        HydromelError: the runs differ in task, data set or metric, or none has a quality.
    """
    kinds = {(run.result["task"], run.result["dataset"], run.metric) for run in runs}
    if len(kinds) > 1:
        shown = "; ".join(sorted(" ".join(kind) for kind in kinds))
        raise HydromelError(f"--log-best: runs of one task, data set and metric can be ranked, but these are {shown}")
    qualities = [(run.number(f"metrics.valid.{run.metric}"), run) for run in runs]
    ranked = [(quality, run) for quality, run in qualities if quality is not None]
    if not ranked:
        raise HydromelError("--log-best: no run has a quality on the validation set")
    sign = 1 if ranked[0][1].result["quality"]["higher_is_better"] else -1
    return max(ranked, key=lambda item: (sign * item[0], -item[1].created))[1]


def _log(best: Run, location: MlflowLocation, name: str | None) -> tuple[str, str | None]:
    """Return the model's id in MLflow and, if it was registered, its version."""
    client = open_store(location.uri, TIMEOUT_S)
    experiment = client.get_experiment_by_name(location.experiment)
    of_run = f"tags.`{TAG_RUN_ID}` = '{best.result['run_id']}'"
    found = [] if experiment is None else client.search_runs([experiment.experiment_id], of_run, max_results=1)
    if not found:
        raise HydromelError(
            f"--log-best: experiment '{location.experiment}' has no run of {best.folder}; upload it with hydromel-sync"
        )
    run_id = found[0].info.run_id
    model_id = log_model(client, run_id, best.folder, best.result)
    return model_id, None if name is None else register(client, name, model_id, run_id, ALIAS)
