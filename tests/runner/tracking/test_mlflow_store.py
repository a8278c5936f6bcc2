import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runner.tracking import mlflow_store


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("there", ["nothing", "an empty file"])
@pytest.mark.parametrize("cache", ["a folder", "a file"])
def test_a_store_is_complete_or_not_there_whenever_its_first_process_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    template: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: str,
    cache: str,
) -> None:
    place = tmp_path_factory.mktemp("cache") / "cache"
    if cache == "a file":  # so that no template can be kept
        place.touch()
    monkeypatch.setenv("HYDROMEL_CACHE", str(place))
    store = tmp_path / "mlflow.db"
    if there != "nothing":
        store.touch()  # as the first connection of SQLite leaves it

    def half(uri: str) -> None:
        with closing(sqlite3.connect(mlflow_store.sqlite_path(uri))) as database:
            database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        Path(f"{mlflow_store.sqlite_path(uri)}-journal").write_text("left behind")
        raise Killed

    monkeypatch.setattr(mlflow_store, "create_schema", half)
    with pytest.raises(Killed):
        mlflow_store.connect(f"sqlite:///{store}", "tests", None, 10.0)
    assert not store.exists() or store.stat().st_size == 0

    def whole(uri: str) -> None:
        assert not Path(mlflow_store.sqlite_path(uri)).exists()
        shutil.copy(template, mlflow_store.sqlite_path(uri))

    monkeypatch.setattr(mlflow_store, "create_schema", whole)
    client, experiment = mlflow_store.connect(f"sqlite:///{store}", "tests", None, 10.0)
    assert client.search_runs([experiment]) == []
    assert {path.name for path in tmp_path.iterdir()} <= {f"mlflow.db{end}" for end in ("", ".lock", "-wal", "-shm")}


@pytest.mark.parametrize("damage", ["none", "empty", "torn", "text"])
def test_the_schema_is_created_once_and_a_damaged_template_is_replaced(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    created = []

    def whole(uri: str) -> None:
        created.append(uri)
        shutil.copy(template, mlflow_store.sqlite_path(uri))

    monkeypatch.setenv("HYDROMEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mlflow_store, "create_schema", whole)
    mlflow_store.connect(f"sqlite:///{tmp_path}/a.db", "tests", None, 10.0)
    (kept,) = (tmp_path / "cache").glob("mlflow-*.db")
    content = kept.read_bytes()
    kept.write_bytes({"none": content, "empty": b"", "torn": content[:9000], "text": b"no database " * 99}[damage])
    client, _ = mlflow_store.connect(f"sqlite:///{tmp_path}/b.db", "tests", None, 10.0)
    assert {"tests", "Default"} <= {experiment.name for experiment in client.search_experiments()}
    assert len(created) == (1 if damage == "none" else 2)
