"""Compare the predictions of `hydromel-plan` with short measured runs of each strategy.

    python benchmarks/advisor.py --data DATA --json benchmarks/results/advisor.json

Each run has a process of its own. The runs of a data set alternate, in reverse order every second turn; figures are
medians over the turns. Prints a Markdown table. One turn takes about five minutes on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

STRATEGIES = ("size1", "bucketed", "padmask", "packed")
_CONV = ["~encoder.pool", "~encoder.hidden", "encoder=conv", "encoder.filters=100", "task.pooling=max"]
# options and number of updates; all of an epoch for newsgroups4, since few of its posts have most of its tokens
WORKS: dict[str, tuple[list[str], int]] = {
    "wnut17": (["experiment=wnut17"], 60),
    "sst2": (["experiment=sst2_lstm"], 100),
    "newsgroups4": (["experiment=newsgroups4", *_CONV], 70),
    "movie_reviews": (["experiment=movie_reviews", *_CONV], 20),
}
_QUIET = ["train.epochs=1", "train.warmup_updates=3", "tracker=none", "run_plots=null", "predictions=false"]
HEADER = """| data set | strategy | tokens/s predicted | measured | error % | peak MiB predicted | measured | error % |
|---|---|---|---|---|---|---|---|"""
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("works", nargs="*", metavar="SET", help=f"among {', '.join(WORKS)} (default: all)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the published data sets")
    parser.add_argument("--turns", type=int, default=1, help="runs of each strategy (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    if unknown := set(options.works) - WORKS.keys():
        parser.error(f"no such data set: {', '.join(unknown)}; use {', '.join(WORKS)}")
    print(HEADER)
    found = {}
    for name in options.works or WORKS:
        found[name] = measured(name, options)
        print(*(line(name, strategy, one) for strategy, one in found[name]["strategies"].items()), sep="\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return predictions and measured medians of one data set, with the circumstances that its runs recorded."""
    overrides, updates = WORKS[name]
    common = [*overrides, f"data_dir={options.data}", f"threads={options.threads}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        call("runner.cli.plan", [*common, f"batching={','.join(STRATEGIES)}", "--json", str(file)])
        plan = json.loads(file.read_text(encoding="utf-8"))
        runs: dict[str, list[dict[str, Any]]] = {strategy: [] for strategy in STRATEGIES}
        for turn in range(options.turns):
            for strategy in STRATEGIES if turn % 2 == 0 else reversed(STRATEGIES):
                run = Path(folder) / f"{strategy}-{turn}"
                own = [
                    f"batching={strategy}",
                    f"train.max_updates={updates}",
                    "baselines=false",
                    f"hydra.run.dir={run}",
                ]
                call("runner.cli.train", [*common, *_QUIET, *own])
                runs[strategy].append(json.loads((run / "result.json").read_text(encoding="utf-8")))
    predicted = {one["name"]: one["predicted"] for one in plan["planned"]}
    first = runs[STRATEGIES[0]][0]["provenance"]
    return {
        "strategies": {strategy: figures(predicted[strategy], runs[strategy]) for strategy in STRATEGIES},
        "updates": updates,
        "turns": options.turns,
        "provenance": {key: first[key] for key in ("git_commit", "cpu", "threads", "load_average", "device")},
    }


def figures(predicted: dict[str, Any], runs: Sequence[dict[str, Any]]) -> dict[str, Figures]:
    """Return real tokens/s and peak bytes of one strategy: predicted, and the median over its runs."""
    return {
        "predicted": {
            "real_tokens_per_s": predicted["predicted_real_tokens_per_s"],
            "peak_bytes": predicted["predicted_peak_bytes"],
        },
        "measured": {
            "real_tokens_per_s": median(run["speed"]["real_tokens_per_s"] for run in runs),
            "peak_bytes": median(run["memory"]["peak_bytes"] for run in runs),
        },
    }


def line(name: str, strategy: str, one: dict[str, Figures]) -> str:
    """Return a row of the table."""
    cells = [name, strategy]
    for key, unit in (("real_tokens_per_s", 1), ("peak_bytes", 2**20)):
        predicted, there = one["predicted"][key], one["measured"][key]
        cells += [f"{predicted / unit:,.0f}", f"{there / unit:,.0f}", f"{100 * (predicted / there - 1):+.0f}"]
    return f"| {' | '.join(cells)} |"


def call(module: str, arguments: Sequence[str]) -> None:
    """Run a command of the project in a fresh process; if it fails, exit with its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
