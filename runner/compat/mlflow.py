"""Private APIs of MLflow: its database's schema and retries, artifacts, checks of models, its page's shared views.

It is imported on use: the import takes seconds, and most commands do not need it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from runner.compat.private import private_api

CHECKED = "3.17.2"
VIEW_TAG = "mlflow.sharedViewState."  # prefix of the experiment's tag; the key in the page's address follows


def try_database_once() -> None:
    """Make MLflow try once to connect to a database; its own ten tries take 100 seconds."""
    with private_api("mlflow", CHECKED):
        from mlflow.store.db import utils

        assert utils.MAX_RETRY_COUNT  # assigning to a name that MLflow no longer reads would change nothing
    utils.MAX_RETRY_COUNT = 1


def create_schema(uri: str) -> None:
    """Create the schema of a database, and close it: MLflow's client would keep its connections.

    Raises:
        Exception: any error of SQLAlchemy.
    """
    import sqlalchemy

    with private_api("mlflow", CHECKED):
        from mlflow.store.db import utils

        initialize: Callable[[sqlalchemy.Engine], None] = utils._initialize_tables
    engine = sqlalchemy.create_engine(uri)
    try:
        initialize(engine)
    finally:
        engine.dispose()


def delete_artifacts(artifact_uri: str, tracking_uri: str) -> None:
    """Delete all files of a run, which MLflow's client has no method for; `tracking_uri` is that of the store.

    Raises:
        Exception: any error of mlflow, or of the library that accesses the files.
    """
    with private_api("mlflow", CHECKED):
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    repository: Any = get_artifact_repository(artifact_uri, tracking_uri=tracking_uri)
    repository.delete_artifacts()


def without_check_of_requirements() -> AbstractContextManager[object]:
    """Return a context in which models are saved without a comparison of their requirements with installed packages.

    MLflow only warns of differences. For this it lists the files of all installed packages, which takes a second.
    """
    from unittest import mock

    with private_api("mlflow", CHECKED):
        from mlflow.utils import environment

        name = "warn_dependency_requirement_mismatches"
        getattr(environment, name)
    return mock.patch.object(environment, name)


def view_tag_value(name: str, state: Mapping[str, object], now_ms: int) -> str:
    """Return the value of the experiment's tag for a shared view of MLflow's page.

    The format is that of a view saved by hand. A page of a later version that does not understand it shows an error.
    `state` is that of the page, and `now_ms` the time of creation, in milliseconds since 1970.
    """
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{packed}"})
