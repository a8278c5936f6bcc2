"""MLflow's database retries, deleting artifacts and shared views."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.common.errors import HydromelError
from runner.compat.mlflow import (
    delete_artifacts,
    try_database_once,
    view_tag_value,
    without_check_of_requirements,
)
from tests.helpers.mlflow_views import read_state


def test_the_database_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    monkeypatch.setattr(utils, "MAX_RETRY_COUNT", 10)
    try_database_once()
    assert utils.MAX_RETRY_COUNT == 1


def test_a_missing_setting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.db import utils

    monkeypatch.delattr(utils, "MAX_RETRY_COUNT")
    with pytest.raises(HydromelError, match=r"^mlflow \S+ does not have .*MAX_RETRY_COUNT.*pip install 'mlflow=="):
        try_database_once()


def test_requirements_are_not_checked_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.utils import environment

    checked: list[list[str]] = []
    monkeypatch.setattr(environment, "warn_dependency_requirement_mismatches", checked.append)
    with without_check_of_requirements():
        environment._process_pip_requirements(["numpy==1"], ["numpy==1"])
    assert not checked
    environment._process_pip_requirements(["numpy==1"], ["numpy==1"])
    assert checked


def test_all_artifacts_of_a_run_are_deleted(tmp_path: Path) -> None:
    for name in ("a.txt", "plots/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("content", encoding="utf-8")
    delete_artifacts(tmp_path.as_uri(), f"sqlite:///{tmp_path.parent}/store.db")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_view_holds_its_name_times_and_state() -> None:
    value = view_tag_value("night: every run", {"searchFilter": "x", "compareRunCharts": []}, now_ms=12)
    named = json.loads(value)
    assert (named["name"], named["createdAt"], named["updatedAt"]) == ("night: every run", 12, 12)
    assert read_state(value) == {"searchFilter": "x", "compareRunCharts": []}
