"""Download of runs that were logged to MLflow: their records are artifacts, saved to folders and read from there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reporting.runs.run import FoundRun, read
from runner.common.errors import HydromelError, unknown, without_credentials
from runner.common.run_schema import METRICS, OUTCOMES, RESOLVED, RESULT, RUN, TAG_RUN_ID

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PREFIX = "mlflow:"
PAGE = 200  # runs per request


def download(experiment: str, tracking_uri: str, folder: Path) -> list[FoundRun]:
    """Download the records of an MLflow experiment's runs below `folder`, and return the runs.

    Raises HydromelError when the server does not answer, or has no such experiment, or no run of Hydromel in it.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # so that a wrong address fails soon
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        logged = client.get_experiment_by_name(experiment)
        if logged is None:
            names = [known.name for known in client.search_experiments()]
            raise unknown("MLflow experiment", experiment, names, f"--tracking-uri {without_credentials(tracking_uri)}")
        runs = [_fetch(client, run_id, status, folder) for run_id, status in _runs(client, logged.experiment_id)]
    except MlflowException as error:
        raise HydromelError(without_credentials(f"MLflow at {tracking_uri}: {str(error).splitlines()[0]}")) from error
    if not runs:
        raise HydromelError(
            f"no run of Hydromel in the MLflow experiment '{experiment}' ({without_credentials(tracking_uri)})"
        )
    return runs


def _runs(client: MlflowClient, experiment_id: str) -> list[tuple[str, str]]:
    """Return (id, status) of every run that Hydromel trained. A comparison report is an MLflow run too: left out."""
    runs: list[tuple[str, str]] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=PAGE, page_token=token)
        runs += [(run.info.run_id, run.info.status.lower()) for run in page if TAG_RUN_ID in run.data.tags]
        if not (token := page.token):
            return runs


def _fetch(client: MlflowClient, run_id: str, status: str, parent: Path) -> FoundRun:
    folder = parent / run_id
    folder.mkdir(parents=True)
    for artifact in client.list_artifacts(run_id):
        if artifact.path in (RUN, RESULT, METRICS, RESOLVED, OUTCOMES):
            client.download_artifacts(run_id, artifact.path, str(folder))
    run, name = read(folder), PREFIX + run_id
    # The folder is temporary, so that reports and messages name the run in MLflow instead.
    return replace(
        run,
        folder=Path(name),
        status=status if run.status == "unknown" else run.status,
        problem=run.problem and run.problem.replace(str(folder), name),
    )
