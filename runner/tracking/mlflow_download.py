"""Download the files of a finished run from MLflow that are needed to use it."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from runner.common import run_schema
from runner.common.bounded import check_contents
from runner.common.errors import HydromelError, did_you_mean, shortened, without_credentials
from runner.common.run_names import find_run, names_of_runs
from runner.tracking.mlflow_store import check_uri, one_line, open_store

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)
T = TypeVar("T")
_FILES = (run_schema.RESOLVED, run_schema.VOCABS, f"{run_schema.CHECKPOINTS}/{run_schema.BEST}")
_MODELS, _RUNS = "models:/", "runs:/"
MODEL_FILES = "artifacts/run"  # folder of a model in MLflow that has the run's files
_TIMEOUT_S = 60.0  # timeout of one request; a checkpoint may be large


def with_folder(run: str, uri: str, load: Callable[[Path], T], runs: Path = Path("runs")) -> T:
    """Return the result of `load` for a run's folder, or for a temporary folder with the files downloaded from MLflow.

    `run` is a folder, the name or id of a run below the folder `runs`, an id of MLflow, or the address of a model:
    `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/ID` or `runs:/ID/model`.

    Raises:
        HydromelError: the run does not exist, lacks the files of a model, or the store could not be reached; or the
            name fits several runs.
    """
    with tempfile.TemporaryDirectory(prefix="hydromel-") as folder:
        return load(folder_of(run, uri, Path(folder), runs))


def folder_of(run: str, uri: str, into: Path, runs: Path = Path("runs")) -> Path:
    """Return a run's folder on this machine, or `into` with the files downloaded from MLflow; see `with_folder`."""
    if (found := find_on_this_machine(run, uri, runs)) is not None:
        return found
    if run.startswith((_MODELS, _RUNS)):
        _fetch_model(run, uri, into)
    else:
        _fetch(run, uri, into)
    return into


def find_on_this_machine(run: str, uri: str, runs: Path) -> Path | None:
    """Return a run's folder on this machine; None if MLflow may have it. Raises HydromelError as `with_folder`."""
    if run.startswith((_MODELS, _RUNS)):
        return None
    if (found := find_run(run, runs)) is not None:
        return found
    check_uri(uri)
    if not re.fullmatch(r"[0-9a-f]{32}", run):
        raise HydromelError(
            f"run={shortened(run)}: no such run{did_you_mean(run, names_of_runs(runs))} Give its folder, its name or "
            f"id below {runs}/ (--runs), its id in MLflow (32 digits and letters a to f), or the address of a model "
            "there (models:/NAME@ALIAS, runs:/ID/model)"
        )
    return None


def _fetch_model(model: str, uri: str, into: Path) -> None:
    """Download the files of a model that a run logged; the code beside them is neither read nor run."""
    check_uri(uri)
    try:
        with warnings.catch_warnings(action="ignore"):  # mlflow's, about its own dependencies
            client = open_store(uri, _TIMEOUT_S)
            from mlflow.artifacts import download_artifacts

            address = f"{_place_of_model(client, model.rstrip('/'))}/{MODEL_FILES}"
            got = Path(download_artifacts(address, dst_path=str(into / "download"), tracking_uri=uri))
            shutil.copytree(got, into, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(into / "download")
    except HydromelError:
        raise
    except Exception as error:  # whatever mlflow, a driver or a cloud's library raises
        raise HydromelError(f"{model}: MLflow at {without_credentials(uri)}: {one_line(error)}") from error
    check_contents(into)
    if missing := [file for file in _FILES if not (into / file).is_file()]:
        raise HydromelError(f"{model}: it has no {missing[0]}, so it is no model of Hydromel")


def _place_of_model(client: MlflowClient, address: str) -> str:
    """Return the place of a logged model's files, given its own address, that of its run or of a registered version.

    MLflow itself would look for models in its default store, not in that of `client`.
    """
    if address.startswith(_RUNS):
        run_id = address.removeprefix(_RUNS).partition("/")[0]
        outputs = client.get_run(run_id).outputs
        ids = [output.model_id for output in outputs.model_outputs] if outputs else []
        if not ids:
            raise HydromelError(f"{address}: that run logged no model")
        return str(client.get_logged_model(ids[-1]).artifact_location)
    name, _, alias = address.removeprefix(_MODELS).partition("@")
    name, _, version = name.partition("/")
    if not alias and not version:
        return str(client.get_logged_model(name).artifact_location)
    known = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    return str(known.source)


def _fetch(run: str, uri: str, folder: Path) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):  # warnings of mlflow about its own dependencies
            client = open_store(uri, _TIMEOUT_S)
            run_id = _find(client, run, uri)
            listed = [*client.list_artifacts(run_id), *client.list_artifacts(run_id, run_schema.CHECKPOINTS)]
            there = {file.path for file in listed}
            ended = _unfinished(client.get_run(run_id))
            if missing := [file for file in _FILES if file not in there]:
                what = f"{missing[0]} of this run{ended}; use the run's folder, or train again"
                raise HydromelError(f"run={run}: MLflow has no {what}")
            if ended:
                log.warning("warning: run=%s: its best checkpoint so far is used%s", run, ended)
            for file in _FILES:
                got = Path(client.download_artifacts(run_id, file, str(folder)))
                (folder / file).parent.mkdir(exist_ok=True)
                got.replace(folder / file)  # stores differ in whether they keep an artifact's folder
    except HydromelError:
        raise
    except Exception as error:  # whatever mlflow, a driver or a cloud's library raises
        raise HydromelError(f"run={run}: MLflow at {without_credentials(uri)}: {one_line(error)}") from error


def _unfinished(run: Run) -> str:
    """Return how a run ended, in brackets, with the reason if its note has one; empty if it is finished."""
    if run.info.status == "FINISHED":
        return ""
    reason = str(run.data.tags.get("mlflow.note.content", "")).split("\n")[-1].replace("\\", "")  # the note is Markdown
    return f" ({reason or run.info.status.lower()})"


def _find(client: MlflowClient, run: str, uri: str) -> str:
    """Return MLflow's own id of the run."""
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        return str(client.get_run(run).info.run_id)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    matches = client.search_runs(experiments, f"tags.`{run_schema.TAG_RUN_ID}` = '{run}'", max_results=1)
    if not matches:
        raise HydromelError(
            f"run={run}: no such run in MLflow at {without_credentials(uri)} (--uri), nor a folder of that name"
        )
    return str(matches[0].info.run_id)
