"""Runs that were logged to MLflow: their records are artifacts, and are downloaded to be read as folders."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from reporting.runs.run import Found, read
from runner.common.errors import HydromelError, unknown
from runner.common.run_schema import METRICS, OUTCOMES, RESOLVED, RESULT, RUN, TAG_RUN_ID

PREFIX = "mlflow:"
PAGE = 200  # runs asked for at a time


def download(experiment: str, tracking_uri: str, into: Path) -> list[Found]:
    """The runs of an MLflow experiment, their records downloaded below `into`.

    Raises HydromelError when the server does not answer, or has no such experiment, or no runs of ours in it.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a wrong address should say so soon
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri=tracking_uri)
        known = client.get_experiment_by_name(experiment)
        if known is None:
            names = [each.name for each in client.search_experiments()]
            raise unknown("MLflow experiment", experiment, names, f"--tracking-uri {_public(tracking_uri)}")
        found = [_fetch(client, run_id, status, into) for run_id, status in _runs(client, known.experiment_id)]
    except MlflowException as error:
        raise HydromelError(_public(f"MLflow at {tracking_uri}: {str(error).splitlines()[0]}")) from error
    if not found:
        raise HydromelError(f"no run of Hydromel in the MLflow experiment '{experiment}' ({_public(tracking_uri)})")
    return found


def _public(text: str) -> str:
    """`text` without the user and password of an address in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _runs(client: Any, experiment_id: str) -> list[tuple[str, str]]:
    """(id, status) of every run that Hydromel trained; a sweep's report is a run too, but not one of them."""
    runs: list[tuple[str, str]] = []
    token = None
    while True:
        page = client.search_runs([experiment_id], max_results=PAGE, page_token=token)
        runs += [(run.info.run_id, run.info.status.lower()) for run in page if TAG_RUN_ID in run.data.tags]
        token = page.token
        if not token:
            return runs


def _fetch(client: Any, run_id: str, status: str, into: Path) -> Found:
    folder = into / run_id
    folder.mkdir(parents=True)
    for artifact in client.list_artifacts(run_id):
        if artifact.path in (RUN, RESULT, METRICS, RESOLVED, OUTCOMES):
            client.download_artifacts(run_id, artifact.path, str(folder))
    found, name = read(folder), PREFIX + run_id
    return replace(
        found,
        folder=Path(name),
        status=status if found.status == "unknown" else found.status,
        problem=found.problem and found.problem.replace(str(folder), name),
    )
