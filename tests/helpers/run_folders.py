"""Fabricated runs' folders with everything that a real run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from runner.common import run_schema
from runner.common.records import RESULT_KEYS, SECONDS_KEYS, DataRecord, LengthRecord, SpeedRecord
from runner.tracking.run_folder import RunFolder

TAGS = {
    "task": "tag",
    "dataset": "wnut17",
    "embedding": "word",
    "encoder": "rnn",
    "batching": "padmask",
    "seed": "1",
}
CONFIG: dict[str, Any] = {
    "choices": {"encoder": "rnn", "task": "tag", "tracker": "mlflow", "experiment": None},
    "given": ["train.epochs", "encoder"],
    "seed": 1,
    "encoder": {"_target_": "runner.encoders.rnn.Recurrent", "hidden": 100, "cell": "lstm", "dropout": 0.0},
    "embedding": {"sizes": [1, 2, 3], "path": None},
    "train": {"epochs": 10, "patience": None, "note": "x" * 900},
    "tracker": {"_target_": "runner.tracking.tracker.NoTracker"},
}


def mlflow_node(uri: str, **other: Any) -> dict[str, Any]:
    return {
        "_target_": "runner.tracking.mlflow_tracker.MlflowTracker",
        "uri": uri,
        "experiment": "tests",
        "artifact_location": None,
        "log_model": None,
        "register": None,
        "timeout_s": 10.0,
        "retry_s": 30.0,
        **other,
    }


def start(path: Path, tracker: dict[str, Any] | None = None) -> RunFolder:
    """A run that has just begun."""
    config = CONFIG | ({"tracker": tracker} if tracker else {})
    run = RunFolder.open(path)
    (path / run_schema.RESOLVED).write_text(yaml.safe_dump(config))
    run.begin(name=path.name, experiment="compare", sweep_id="sweep-1", tags=TAGS, tracker=config["tracker"])
    return run


def log_epoch(run: RunFolder, epoch: int, updates: int = 5) -> None:
    for step in range((epoch - 1) * updates + 1, epoch * updates + 1):
        run.log(step, epoch, {"train/loss": 1 / step, "train/seconds": 0.1 * step})
    run.log(epoch * updates, epoch, {"valid/f1": 10.0 * epoch, "valid/broken": float("nan")})
    run.flush()


def finish(run: RunFolder) -> None:
    (run.path / run_schema.PLOTS).mkdir(exist_ok=True)
    (run.path / run_schema.PLOTS / "loss.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    run.write_result(result(run))
    run.set_status(run_schema.FINISHED)
    run.close()


def finished(path: Path, tracker: dict[str, Any] | None = None, epochs: int = 2) -> Path:
    """A run that has ended well."""
    run = start(path, tracker)
    for epoch in range(1, epochs + 1):
        log_epoch(run, epoch)
    finish(run)
    return path


def result(run: RunFolder) -> dict[str, Any]:
    content = {
        **TAGS,
        "run_id": run.run["run_id"],
        "name": run.run["name"],
        "seed": 1,
        "turn": 1,
        "sweep_id": "sweep-1",
        "experiment": "compare",
        "quality": {"metric": "f1", "unit": "%", "higher_is_better": True},
        "metrics": {
            "valid": {"f1": 20.0, "accuracy": 90.0, "perplexity": float("inf")},
            "test": {"f1": 18.5, "accuracy": 89.5, "per_type": {"person": {"f1": 30.0}}},
        },
        "majority": {"f1": 0.0, "accuracy": 88.0},
        "baselines": {"most_frequent_tag": {"f1": 7.25, "accuracy": 88.5, "seconds": 0.1}},
        "speed": dict.fromkeys(SpeedRecord.__annotations__, 1234.5)
        | {"by_length": [dict.fromkeys(LengthRecord.__annotations__, 8)]},
        "tokens": {"real": 900, "padded": 100, "padding_share": 0.1, "supervised": 900, "truncated": 0},
        "padding": {"spread": 80, "last_batch": 20, "rounding": 0},
        "characters": {"real": 300, "padded": 100},
        "seconds": dict.fromkeys(SECONDS_KEYS, 1.5),
        "memory": {"peak_bytes": 2**30, "before_training_bytes": 2**29, "source": "rss"},
        "energy": {"joules": 90.0, "joules_per_thousand_tokens": 100.0, "source": "NVML"},
        "arithmetic": {
            "flops_per_place": 1e6,
            "achieved_flops_per_s": 1e10,
            "device_flops_per_s": 1e11,
            "share": 0.1,
            "dtype": "float32",
        },
        "advice": None,
        "init_from": None,
        "data": {"test": dict.fromkeys(DataRecord.__annotations__, 8) | {"unseen": {}}},
        "changes": [],
        "kernel": "oneDNN LSTM, padded",
        "updates": {"count": 10, "epochs": 2, "digest": "abc", "dropout": False},
        "model": {"parameters": 12345},
        "vocab": {"size": {"word": 100}, "oov_rate": {"test": {"word": 0.1}}},
        "provenance": {"git_commit": "f" * 40, "data_fingerprint": "d" * 64, "comparison_hash": "c" * 8},
    }
    assert set(content) == set(RESULT_KEYS)
    return content | {"counters": {"pieces": {"real": 1200, "padded": 300, "windows": 10}}}  # which only some runs have
