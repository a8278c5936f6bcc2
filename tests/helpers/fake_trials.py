"""Stands for the interpreter that runs a trial, `python -m runner.experiment.job FOLDER`, and trains nothing.

The curve is a function of the config: `curve(optimizer.lr)`. A rate above DIVERGES ends in an error, KILLED by a
signal; one below LINGERS waits for its end before the last evaluation. Told to end, it ends as an interrupted run does.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from runner.common import run_schema
from runner.terminal.interruption import interruption
from runner.tracking.run_folder import RunFolder

if TYPE_CHECKING:  # not for the trials' sake
    import pytest

OPTIONS = (
    *("search=optuna", "search.plots=null", "tracker=none", "train.epochs=4", "search.begin_with_defaults=false"),
    *("+search.space.optimizer.lr={low: 0.001, high: 0.9}", "+search.space.embedding.size={choices: [3, 7]}"),
)
DIVERGES, LINGERS, KILLED = 0.95, 0.1, 0.97
_LONG_SECONDS = 200.0


def use(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let trials of this process be run by this file; their program is put into `folder`."""
    script = folder / "python"
    root = str(Path(__file__).parents[2])
    start = "from tests.helpers.fake_trials import main; main()"
    lines = [f"#!{sys.executable}", f"import sys; sys.path.insert(0, {root!r})", start]
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))


def curve(rate: float, epochs: int = 4) -> list[float]:
    """Percent at each evaluation; best for a rate of 0.5."""
    return [(90 - 100 * abs(rate - 0.5)) * (1 - 0.5**epoch) for epoch in range(1, epochs + 1)]


def main() -> None:
    interruption.heed()
    folder = Path(sys.argv[-1])
    config = yaml.safe_load((folder / run_schema.RESOLVED).read_text(encoding="utf-8"))
    rate, sweep = config["optimizer"]["lr"], config["sweep"]
    tags = {"seed": "1", run_schema.TAG_TRIAL: str(sweep["trial"])}
    with RunFolder.open(folder) as run:
        run.begin(name="fake", experiment=None, sweep_id=sweep["id"], tags=tags, tracker=config.get("tracker", {}))
        if rate == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if rate > DIVERGES:
            run.set_status(run_schema.FAILED, "the loss is nan at update 3")
            sys.exit(1)
        values = curve(rate, config["train"]["epochs"])
        try:
            for epoch, value in enumerate(values, start=1):
                if rate < LINGERS and epoch == len(values):
                    time.sleep(_LONG_SECONDS)
                run.log(epoch, epoch, {"valid/accuracy": value, "train/seconds": 0.1 * epoch})
                run.flush()
        except KeyboardInterrupt:
            run.set_status(run_schema.INTERRUPTED, "KeyboardInterrupt")
            sys.exit(130)
        metrics = {"valid": {"accuracy": max(values)}, "test": {"accuracy": 100.0 * rate}}
        run.write_result(
            {
                "run_id": run.run["run_id"],
                **dict.fromkeys(("task", "dataset", "embedding", "encoder", "batching"), "fake"),
                "seed": 1,
                "quality": {"metric": "accuracy", "higher_is_better": True},
                "metrics": metrics,
                "updates": {"count": len(values), "digest": ""},
                "provenance": {"comparison_hash": ""},
            }
        )
        run.set_status(run_schema.FINISHED)
