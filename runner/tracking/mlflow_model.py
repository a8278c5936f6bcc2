"""A run as a model in MLflow: a pyfunc flavour made from code, without pickle, that answers as `hydromel-predict`.

The model's folder has links to files of the run's folder, so only the store copies them. What answers is
`runner.serving`, which a server imports from its own installation.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from runner.common import run_schema
from runner.common.bounded import read_bytes, read_yaml
from runner.common.errors import HydromelError
from runner.common.imports import importing
from runner.common.records import ResultRecord
from runner.compat.mlflow import without_check_of_requirements
from runner.tracking.mlflow_download import MODEL_FILES

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.tracking import MlflowClient
    from mlflow.types import DataType
    from mlflow.types.schema import Array

NAME = "model"  # of the model within its run: runs:/ID/model
_BEST = f"{run_schema.CHECKPOINTS}/{run_schema.BEST}"
_FILES = (run_schema.RESOLVED, run_schema.VOCABS, _BEST)  # what a model is made of
_BESIDES = (run_schema.RESULT, run_schema.MODEL_CARD, run_schema.EXAMPLE)  # if the run has them
_PINNED = ("hydromel", "torch", "numpy", "pyarrow")
_TEXT_COLUMNS = {"tokens": "text", "tokens_b": "text_b"}


def missing_file(folder: Path) -> str | None:
    """Return the first file of the model that a run's folder lacks; None if all are there."""
    return next((name for name in _FILES if not (folder / name).is_file()), None)


def digest_of(folder: Path) -> str:
    """Return a hash of the files that make the run's model. Raises OSError if one is missing."""
    digest = hashlib.blake2b(digest_size=8)
    for name in _FILES:
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, hashlib.blake2b).digest())
    return digest.hexdigest()


def log_model(client: MlflowClient, run_id: str, folder: Path, result: ResultRecord) -> str:
    """Log the best checkpoint of a finished run as a model of its run in MLflow; return the model's id there.

    A model of the same run with the same files is not logged again, and one that an interrupted call left unfinished is
    completed.

    Args:
        run_id: MLflow's own id of the run.

    Raises:
        HydromelError: a file of the run is missing or damaged.
        Exception: of mlflow or the operating system.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    if (missing := missing_file(folder)) is not None:
        raise HydromelError(f"{folder}: the run has no {missing}, so there is no model to log")
    experiment_id, digest = client.get_run(run_id).info.experiment_id, digest_of(folder)
    wanted = f"source_run_id = '{run_id}' AND tags.`hydromel.digest` = '{digest}'"
    known = client.search_logged_models([experiment_id], wanted, max_results=1)
    tags = {"hydromel.digest": digest, run_schema.TAG_RUN_ID: result["run_id"], "task": result["task"]}
    model = known[0] if known else client.create_logged_model(experiment_id, NAME, run_id, tags, model_type="hydromel")
    if model.status == LoggedModelStatus.READY:
        return str(model.model_id)
    with tempfile.TemporaryDirectory(prefix="hydromel-", dir=_beside(folder)) as place:
        write_model(folder, Path(place) / "model", run_id, str(model.model_id), result)
        client.log_model_artifacts(model.model_id, str(Path(place) / "model"))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, result["updates"]["count"])])
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def register(client: MlflowClient, name: str, model_id: str, run_id: str, alias: str) -> str:
    """Register a logged model as a version of `name` with an alias, unless it has one; return the version.

    Raises:
        Exception: of mlflow.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # the place of the files, since MLflow would look for models:/ID in its default store, not in this one
    source = client.get_logged_model(model_id).artifact_location
    versions = client.search_model_versions(f"name = '{name}' AND run_id = '{run_id}'")
    known = next((version for version in versions if version.source == source), None)
    version = known or client.create_model_version(name, source, run_id, model_id=model_id)
    client.set_registered_model_alias(name, alias, str(version.version))
    return str(version.version)


def _beside(folder: Path) -> Path | None:
    """Return a folder on the same file system, in which links to the run's files can be made; None: any folder."""
    return folder.parent if os.access(folder.parent, os.W_OK) else None


def write_model(folder: Path, place: Path, run_id: str, model_id: str, result: ResultRecord) -> None:
    """Write the folder of a model in MLflow's format.

    Args:
        place: the folder to write; it must not exist.

    Raises:
        HydromelError: a file of the run is damaged.
    """
    with importing():
        import mlflow.pyfunc
        from mlflow.models import Model

    example = _example(folder)
    config = read_yaml(folder / run_schema.RESOLVED)
    plugins = config.get("plugins") if isinstance(config, Mapping) else None
    with (
        warnings.catch_warnings(action="ignore"),  # about type hints, which the signature stands for
        without_check_of_requirements(),  # they are those of the run, which may be older than what is installed
        tempfile.TemporaryDirectory(prefix="hydromel-") as empty,
        as_file(files("runner.serving") / "model_code.py") as code,
    ):
        run = Path(empty) / "run"
        run.mkdir()
        mlflow.pyfunc.save_model(
            place,
            python_model=str(code),
            artifacts={"run": str(run)},  # filled below, with links instead of copies
            signature=_signature(example),
            input_example=_frame(example),
            pip_requirements=_requirements(result),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
            model_config={"device": "auto", "plugins": plugins or [], "data_dir": None},
        )
    extra = [path.relative_to(folder).as_posix() for path in sorted((folder / run_schema.MODEL_FILES).rglob("*"))]
    for name in (*_FILES, *_BESIDES, *extra):
        if (folder / name).is_file():
            target = place / MODEL_FILES / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(folder / name, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _example(folder: Path) -> dict[str, object]:
    """Return the example of a run; that of a run without one has a text."""
    path = folder / run_schema.EXAMPLE
    if not path.is_file():
        return {"column": "label", "rows": [{"text": "a"}]}
    example = json.loads(read_bytes(path))
    if not isinstance(example, dict) or not _is_rows(example.get("rows")):
        raise HydromelError(
            f"{path} is damaged; restore a copy of it, or remove it to log the model with an example made up"
        )
    return example


def _is_rows(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) and row for row in value)


def _rows(example: Mapping[str, object]) -> list[dict[str, object]]:
    rows = example["rows"]
    assert _is_rows(rows)
    return rows


def _frame(example: Mapping[str, object]) -> object:
    import pandas as pd

    return pd.DataFrame(_rows(example))


def _signature(example: Mapping[str, object]) -> ModelSignature:
    """Return the columns of input and output; a text is given raw or as tokens, so neither is required."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, TensorSpec

    text, strings = DataType.string, Array(DataType.string)
    column = str(example["column"])
    if column == "text":  # a language model
        output = Schema([ColSpec(text, "text"), ColSpec(DataType.double, "log_p")])
        numbers = {"temperature": DataType.double, "top_k": DataType.long, "top_p": DataType.double}
        options = [ParamSpec("max_tokens", DataType.long, 100), *(ParamSpec(*item, None) for item in numbers.items())]
        options.append(ParamSpec("seed", DataType.long, None))
        return ModelSignature(Schema([ColSpec(text, "text")]), output, ParamSchema(options))
    of_column: dict[str, DataType | Array] = {"label": text, "value": DataType.double}
    given = dict.fromkeys(name for row in _rows(example) for name in row)
    texts = {name: tokens for tokens, name in _TEXT_COLUMNS.items()}
    columns: list[ColSpec | TensorSpec] = []
    for name in given:
        tokens = texts.get(name, name)
        if tokens in _TEXT_COLUMNS:
            columns.append(ColSpec(text, _TEXT_COLUMNS[tokens], required=False))
            columns.append(ColSpec(strings, tokens, required=False))
        else:
            columns.append(ColSpec(strings, name))
    outputs = Schema([ColSpec(of_column.get(column, strings), column)])
    return ModelSignature(Schema(columns), outputs, ParamSchema([ParamSpec("probabilities", DataType.boolean, False)]))


def _requirements(result: ResultRecord) -> list[str]:
    """Return the versions that the run was made with; without the local part of a build, such as `+cpu`."""
    versions = result["provenance"].get("versions", {})
    return [f"{name}=={versions[name].partition('+')[0]}" for name in _PINNED if name in versions]
