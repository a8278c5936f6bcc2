"""MLflow's stores: supported URIs, and connections without retries, noise or long waits. mlflow is imported on use."""

from __future__ import annotations

import contextlib
import glob
import logging
import math
import os
import shutil
import socket
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from runner.common.errors import HydromelError, without_credentials
from runner.common.files import cache_folder
from runner.common.imports import importing
from runner.compat.mlflow import create_schema, try_database_once

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

SQLITE = "sqlite:///"
LOCAL_SERVER = "http://127.0.0.1:5000"  # where `mlflow server` and `make ui` serve a file
# The tag with which MLflow's page marks an experiment of training runs; others open on an empty page for GenAI.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # default ports of database servers
_ALLOWED = f"{SQLITE}FILE, postgresql://..., mysql://..., http(s)://HOST:PORT, databricks"
_SCHEMA_SECONDS = 120.0  # another process may be creating the schema: 6 s, on a busy machine many more


def check_uri(uri: str) -> None:
    """Raise HydromelError, with an alternative, unless MLflow supports this kind of `uri`."""
    scheme = uri.partition(":")[0]
    if uri.startswith(SQLITE):
        path = sqlite_path(uri)
        if path in ("", ":memory:") or path.endswith("/"):
            raise HydromelError(f"tracker.uri={uri!r}: name a file, such as {SQLITE}mlflow.db")
    elif scheme in ("http", "https"):
        if not urlsplit(uri).hostname:
            raise HydromelError(f"tracker.uri={uri!r}: no host; write {scheme}://HOST:PORT")
    elif scheme.partition("+")[0] in _PORTS:
        _check_database(uri)
    elif scheme != "databricks":
        hint = "unknown scheme"
        if scheme in ("file", uri):
            folder = uri.removeprefix("file:").rstrip("/") or "."
            hint = f"MLflow no longer supports plain folders; use {SQLITE}{folder}/mlflow.db"
        raise HydromelError(f"tracker.uri={without_credentials(uri)!r}: {hint}. Allowed: {_ALLOWED}")


def _check_database(uri: str) -> None:
    import sqlalchemy  # a second of import time that only users of a database server pay

    shown = f"tracker.uri={without_credentials(uri)!r}"
    try:
        sqlalchemy.make_url(uri).get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        raise HydromelError(f"{shown} needs the Python package {error.name}") from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise HydromelError(f"{shown}: {error}") from error


def sqlite_path(uri: str) -> str:
    """Return the file that a SQLite URI names, as written."""
    return uri.removeprefix(SQLITE).partition("?")[0]


def connect(uri: str, experiment: str, artifact_location: str | None, timeout_s: float) -> tuple[MlflowClient, str]:
    """Return a client, and the id of `experiment`, which is created if it does not exist.

    A SQLite file is created and gets its experiment under a file lock: processes that start at the same time would
    otherwise disturb each other. An unreachable server costs one `timeout_s`.

    Raises:
        Exception: any error of mlflow, SQLAlchemy or the operating system.
    """
    if not uri.startswith(SQLITE):
        return _with_experiment(_client(uri, timeout_s), experiment, artifact_location)
    path = Path(sqlite_path(uri))
    path.parent.mkdir(parents=True, exist_ok=True)
    _prepare_mlflow()  # takes seconds: not while others wait for the lock
    with FileLock(f"{path}.lock", timeout=_SCHEMA_SECONDS):
        if not path.exists() or path.stat().st_size == 0:
            _create_sqlite(path)
        with contextlib.closing(sqlite3.connect(path, timeout=timeout_s)) as database:
            database.execute("PRAGMA journal_mode=WAL")  # readers (the UI) and writers do not block each other
        location = artifact_location or str(path.parent / "mlartifacts")
        return _with_experiment(_client(uri, timeout_s), experiment, location)


def _create_sqlite(path: Path) -> None:
    """Create the file of a store, under its lock."""
    new, template = _unfinished(path), _template()
    if template is None:
        create_schema(f"{SQLITE}{new}")
    else:
        shutil.copyfile(template, new)
    new.replace(path)


def _unfinished(path: Path) -> Path:
    """Return the temporary name under which a file is built, after removing what an earlier process left there.

    Otherwise a killed process would leave an incomplete store that no later process could complete.
    """
    new = path.with_name(f".{path.name}.new")
    # left by a process that was killed, with its journal
    for leftover in path.parent.glob(f"{glob.escape(new.name)}*"):
        leftover.unlink()
    return new


def _template() -> Path | None:
    """Return an empty store of the installed MLflow in the user's cache; None if it cannot be kept there.

    Creating the schema runs all of MLflow's migrations, which takes seconds. It is done once for each version.
    """
    path = cache_folder() / f"mlflow-{metadata.version('mlflow')}.db"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=_SCHEMA_SECONDS):
            if not _is_store(path):
                new = _unfinished(path)
                create_schema(f"{SQLITE}{new}")
                new.replace(path)
    except (OSError, RuntimeError, Timeout):  # RuntimeError: the user has no home directory
        return None
    return path


def _is_store(path: Path) -> bool:
    """Return True if a SQLite file is intact and has a schema of MLflow."""
    if not path.is_file():
        return False
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            (state,) = database.execute("PRAGMA quick_check").fetchone()
            return state == "ok" and bool(database.execute("SELECT version_num FROM alembic_version").fetchall())
    except sqlite3.Error:
        return False


def open_store(uri: str, timeout_s: float) -> MlflowClient:
    """Return a client of an existing store, in which nothing is created.

    Raises:
        HydromelError: no such file.
        Exception: any error of mlflow, SQLAlchemy or the operating system.
    """
    if uri.startswith(SQLITE) and not Path(sqlite_path(uri)).is_file():
        raise HydromelError(f"{sqlite_path(uri)}: there is no such file")
    return _client(uri, timeout_s)


def _client(uri: str, timeout_s: float) -> MlflowClient:
    # mlflow reads these at each request; its retries would repeat requests that may have arrived, such as "create a
    # run", for minutes
    os.environ |= {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(math.ceil(timeout_s)),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    place = urlsplit(uri)
    usual = _PORTS.get(place.scheme.partition("+")[0])
    if usual and place.hostname:  # the drivers of a database server that is unreachable would wait for minutes
        socket.create_connection((place.hostname, place.port or usual), timeout=timeout_s).close()
    _prepare_mlflow()
    with importing():
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)  # imports the kind of store


def _prepare_mlflow() -> None:
    """Import mlflow so that it neither prints, nor sends anything, nor repeats what failed."""
    os.environ |= {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    with importing():
        try_database_once()  # deliveries are tried again later anyway
    for name in ("mlflow", "alembic"):
        # errors are also raised; their log messages are pages of SQL
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _with_experiment(client: MlflowClient, experiment: str, artifact_location: str | None) -> tuple[MlflowClient, str]:
    from mlflow.exceptions import MlflowException

    stored = client.get_experiment_by_name(experiment)
    if stored is None:
        try:
            return client, client.create_experiment(experiment, artifact_location, tags=_KIND)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            stored = client.get_experiment_by_name(experiment)  # another process was first
    if stored is None or stored.lifecycle_stage != "active":
        raise HydromelError(f"experiment '{experiment}' was deleted in MLflow; restore it or name another")
    for name in _KIND.keys() - stored.tags.keys():  # made by another program, or by an earlier version
        client.set_experiment_tag(stored.experiment_id, name, _KIND[name])
    return client, stored.experiment_id


def page(server: str, experiment_id: str | None, charts: bool = True) -> str:
    """Return the address at which MLflow's page opens on training runs, or (None) on all experiments.

    It opens on charts or, with `charts` false, on the table, in which runs below others can be unfolded. Without these
    parameters it opens on an empty page for GenAI.
    """
    workflow, mode = "workflowType=machine_learning", "&compareRunsMode=CHART" if charts else ""
    place = f"/{experiment_id}/runs?{workflow}{mode}" if experiment_id else f"?{workflow}"
    return f"{without_credentials(server).rstrip('/')}/#/experiments{place}"


def one_line(error: BaseException) -> str:
    """Return an error as one line, without credentials, tracebacks and SQL."""
    text = without_credentials(" ".join(str(error).split())) or "no message"
    return f"{type(error).__name__}: {text.partition(' [SQL:')[0][:300]}"
