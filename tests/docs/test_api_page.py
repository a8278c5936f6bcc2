"""The examples in docs/api.md run as shown, one after another, on a model that is trained for a few updates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest

from runner import api

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
FEW = {"train.max_updates": 4, "train.epochs": 1, "baselines": False, "threads": 1}


@pytest.mark.filterwarnings("ignore")  # of mlflow, about its own dependencies
def test_the_examples_run_as_shown(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_bytes(template.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    train = api.train

    def briefly(overrides: Any, **options: Any) -> api.Run:
        if not isinstance(overrides, Mapping):
            overrides = dict(override.split("=", 1) for override in overrides)
        own = {key: value for key, value in overrides.items() if not key.startswith("train")}
        tracker = {} if "tracker.register" in own else {"tracker": "none"}
        return train({**own, **tracker, **FEW}, **options)

    monkeypatch.setattr(api, "train", briefly)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(blocks) >= 6
    try:
        for block in blocks:
            exec(compile(block, "docs/api.md", "exec"), names)
    finally:
        mlflow.set_tracking_uri(None)
    assert isinstance(names["predictions"], api.PredictedRows)
    assert (tmp_path / "predictions.parquet").is_file()
    assert (tmp_path / "reports" / "tour" / "index.html").is_file()
    answer = names["model"].predict(names["pandas"].DataFrame({"text": ["import os"]}))
    assert answer["tags"].tolist() == list(api.load("models:/roles@newest").predict(["import os"]))
