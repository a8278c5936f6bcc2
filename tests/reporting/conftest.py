"""Fabricated runs: the files of a finished run, with figures that are easy to check by hand."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

PLAN = {"size1": "shuffled", "padmask": "shuffled", "packed": "shuffled", "bucketed": "close", "unmasked": "close"}
SPEED = {"size1": 1000.0, "padmask": 8000.0, "packed": 11000.0, "bucketed": 12500.0, "unmasked": 12600.0}
PADDED = {"size1": 0, "padmask": 1000, "packed": 0, "bucketed": 100, "unmasked": 100}
REAL = 3000


class WriteRun(Protocol):
    def __call__(
        self,
        folder: Path,
        batching: str,
        seed: int,
        *,
        f1: float | None = None,
        valid: list[tuple[float, float | None]] | None = None,
        change: dict[str, Any] | None = None,
    ) -> Path: ...


def set_at(record: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for key in above:
        record = record.setdefault(key, {})
    record[last] = value


@pytest.fixture
def write_run() -> WriteRun:
    """Write a run's folder. `valid` are (seconds, f1) by evaluation; `change` sets dotted paths of result.json."""

    def write(
        folder: Path,
        batching: str,
        seed: int,
        *,
        f1: float | None = None,
        valid: list[tuple[float, float | None]] | None = None,
        change: dict[str, Any] | None = None,
    ) -> Path:
        folder.mkdir(parents=True)
        speed = SPEED.get(batching, 5000.0) * (1 + 0.02 * seed)
        points = valid or [(epoch * 1e5 / speed, 45 - 30 / (epoch + 0.3 * (seed % 3)) + seed) for epoch in range(1, 7)]
        result = make_result(f"{folder.name}-id", batching, seed, speed, 40.0 + seed if f1 is None else f1)
        for path, value in (change or {}).items():
            set_at(result, path, value)
        run = {
            "run_id": result["run_id"],
            "created": 1000.0 + seed,
            "sweep_id": result["sweep_id"],
            "experiment": result["experiment"],
            "status": "finished",
        }
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "result.json").write_text(json.dumps(result))
        lines = [{"time": 1.0, "step": 1, "epoch": 1, "metrics": {"train/loss": 1.0, "train/seconds": 0.1}}]
        for k, (seconds, value) in enumerate(points, start=1):
            metrics = {"train/loss": 1 / k, "valid/f1": value, "train/seconds": seconds}
            lines.append({"time": 2.0 + k, "step": 52 * k, "epoch": k, "metrics": metrics})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        config = {"seed": seed, "batching": {"name": batching}, "train": {"epochs": 6}}
        (folder / "resolved.yaml").write_text(yaml.safe_dump(config))
        return folder

    return write


def make_result(run_id: str, batching: str, seed: int, speed: float, f1: float) -> dict[str, Any]:
    padded = PADDED.get(batching, 0)
    plan = PLAN.get(batching, batching)
    return {
        "run_id": run_id,
        "name": f"{batching} {seed}",
        "task": "tag",
        "dataset": "wnut17",
        "embedding": "word",
        "encoder": "rnn",
        "batching": batching,
        "seed": seed,
        "sweep_id": "night",
        "experiment": "compare_batching",
        "quality": {"metric": "f1", "unit": "%", "higher_is_better": True},
        "metrics": {"valid": {"f1": f1 + 1}, "test": {"f1": f1, "accuracy": 91.5, "per_type": {"person": {"f1": 1.0}}}},
        "majority": {"accuracy": 88.125, "f1": 0.0},
        "speed": {"real_tokens_per_s": speed, "examples_per_s": speed / 20},
        "tokens": {
            "real": REAL,
            "padded": padded,
            "padding_share": padded / (REAL + padded),
            "supervised": REAL,
            "truncated": 0,
        },
        "padding": {"spread": 80 * padded // 100, "last_batch": 5 * padded // 100, "rounding": 15 * padded // 100},
        "seconds": {"total": 60.0},
        "memory": {"peak_bytes": 2**29 + 2**20 * seed, "before_training_bytes": 2**28, "source": "resident set"},
        "kernel": "oneDNN LSTM, packed" if batching == "packed" else "oneDNN LSTM, padded",
        "updates": {
            "count": 312,
            "epochs": 6,
            "digest": hashlib.sha256(f"{plan} {seed}".encode()).hexdigest(),
            "dropout": False,
        },
        "model": {"parameters": 1000},
        "provenance": {
            "git_commit": "abc",
            "versions": {"torch": "2.13"},
            "device": "cpu",
            "cpu": "Xeon",
            "threads": 2,
            "host": "one",
            "data_fingerprint": "data",
            "comparison_hash": "hash",
        },
    }


@pytest.fixture
def sweep(tmp_path: Path, write_run: WriteRun) -> Path:
    """Five strategies over three seeds, below the folder of all runs `runs/night`."""
    for batching in PLAN:
        for seed in (1, 2, 3):
            write_run(tmp_path / "runs" / "night" / f"{batching}-{seed}", batching, seed)
    return tmp_path / "runs"
