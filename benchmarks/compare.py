"""Measure the time that `hydromel-compare` takes for a thousand fabricated runs (nothing is trained).

    python benchmarks/compare.py --json benchmarks/results/compare.json

There are two arrangements: one group of 4 strategies x 250 seeds, and 25 groups of 4 strategies x 10 seeds. Every run
has a config, 20 evaluations, and outcomes of 2,000 test examples. Each command runs in a fresh process and writes a
whole report with tables, page and plots, without MLflow. Wall-clock and CPU seconds include the start of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

STRATEGIES = {"size1": 1000.0, "bucketed": 12_500.0, "padmask": 8000.0, "packed": 11_000.0}
SHUFFLED = ("size1", "padmask", "packed")
EVALUATIONS, EXAMPLES, LENGTHS = 20, 2000, (16, 32, 64, 128)
SHAPES = {"1 group of 4 x 250": (1, 250), "25 groups of 4 x 10": (25, 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    made = {}
    for name, (groups, seeds) in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            for group in range(groups):
                for seed in range(seeds):
                    for strategy in STRATEGIES:
                        fabricate(Path(folder) / "runs" / f"{group}-{strategy}-{seed}", group, strategy, seed)
            made[name] = timed(Path(folder))
        print(name, made[name])
    if options.json:
        about = {"cores": os.cpu_count(), "load_average": os.getloadavg()[0]}
        options.json.write_text(json.dumps({"about": about, "shapes": made}, indent=1) + "\n", encoding="utf-8")


def timed(folder: Path) -> dict[str, float]:
    """Return the seconds of one report, and the sizes of the files that it wrote."""
    command = [sys.executable, "-m", "reporting.compare", str(folder / "runs"), "--out", str(folder / "report")]
    start = time.perf_counter()
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen([*command, "--no-mlflow"], stdout=console)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    written = sum(path.stat().st_size for path in (folder / "report").iterdir())
    return {
        "seconds": round(wall, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_memory_bytes": used.ru_maxrss * 1024,
        "console_lines": (folder / "console").read_bytes().count(b"\n"),
        "page_bytes": (folder / "report" / "index.html").stat().st_size,
        "written_bytes": written,
    }


def fabricate(folder: Path, group: int, strategy: str, seed: int) -> None:
    """Write a run's folder like that of a training; F1 is about 40, and speeds differ by 5 %."""
    plan = "shuffled" if strategy in SHUFFLED else strategy
    rng = np.random.default_rng([group, seed, plan == "shuffled"])
    gold = np.random.default_rng(group).integers(0, 4, EXAMPLES)
    predicted = rng.integers(0, 4, EXAMPLES)
    right = np.minimum(rng.integers(0, 4, EXAMPLES), np.minimum(gold, predicted))
    f1 = float(200 * right.sum() / (gold.sum() + predicted.sum()))
    speed = STRATEGIES[strategy] * rng.uniform(0.95, 1.05)
    folder.mkdir(parents=True)
    np.savez(
        folder / "outcomes.npz",
        split=np.array(["test"]),
        numerator=200 * right,
        denominator=predicted + gold,
        targets=gold,
        f=np.array(["identity"]),
    )
    (folder / "run.json").write_text(json.dumps({"run_id": folder.name, "created": seed, "status": "finished"}))
    (folder / "result.json").write_text(json.dumps(result(folder.name, group, strategy, seed, plan, speed, f1)))
    lines = []
    for step in range(1, EVALUATIONS + 1):
        metrics = {"valid/f1": f1 * (1 - 0.6**step), "train/seconds": step * 1e5 / speed, "train/tokens": step * 1e5}
        lines += [
            {"step": 10 * step - 5, "time": step - 0.5, "epoch": step, "metrics": {"train/loss": 1 / step}},
            {"step": 10 * step, "time": step, "epoch": step, "metrics": metrics},
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    batching = {"name": strategy, "batch_size": 32, "plan": {"batch_size": 32}, "layout": "padded"}
    config = {"seed": seed, "batching": batching, "train": {"epochs": 6}, "encoder": {"size": 100 + group}}
    config |= {f"section{at}": {f"option{key}": key for key in range(8)} for at in range(12)}
    (folder / "resolved.yaml").write_text(yaml.safe_dump(config))


def result(run_id: str, group: int, strategy: str, seed: int, plan: str, speed: float, f1: float) -> dict[str, object]:
    """Return the part of result.json that a comparison reads."""
    names = {"task": "tag", "dataset": "made", "embedding": "word", "encoder": "rnn", "batching": strategy}
    by_length = [
        {"longest": length, "updates": 9, "real_tokens": speed, "places": speed, "seconds": 1.0 + 1 / length}
        for length in LENGTHS
    ]
    return {
        **names,
        "run_id": run_id,
        "seed": seed,
        "quality": {"metric": "f1", "unit": "%", "higher_is_better": True},
        "metrics": {"valid": {"f1": f1 + 1}, "test": {"f1": f1, "accuracy": 91.5}},
        "majority": {"f1": 0.0},
        "speed": {"real_tokens_per_s": speed, "by_length": by_length},
        "tokens": {"real": 3000, "padded": 1000},
        "padding": {"spread": 800, "last_batch": 50, "rounding": 150},
        "seconds": {"data": 1.0, "forward": 5.0, "backward": 9.0, "optimizer": 2.0, "evaluation": 1.0, "total": 20.0},
        "memory": {"peak_bytes": 2**29, "source": "resident set"},
        "kernel": "oneDNN LSTM",
        "updates": {"count": 312, "digest": f"{plan} {seed}", "dropout": False},
        "provenance": {"host": "one", "cpu": "one", "device": "cpu", "threads": 1, "data_fingerprint": "made"}
        | {"comparison_hash": f"hash{group}"},
    }


if __name__ == "__main__":
    main()
