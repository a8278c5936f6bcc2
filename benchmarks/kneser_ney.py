"""Measure Kneser-Ney n-gram models on a published text: perplexity by order, with and without a cache, time, memory.

    python benchmarks/kneser_ney.py --data-dir DATA --json benchmarks/results/kneser_ney.json
    python benchmarks/kneser_ney.py --data-dir DATA --kenlm kenlm/build/bin

The default text is WikiText-2, as rows (`line`) and as one text (`stream`), on one thread. Weights and windows of the
cache are compared on valid, with n-grams of the highest order. Seconds are CPU time, of training and of scoring test,
as medians of `--repeats`. Memory is the peak of arrays during training, without the text.

`--kenlm` names the folder of KenLM's programs lmplz and query, which get the same rows. Their vocabulary has one more
word than ours, the unknown word.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import tempfile
import time
import tracemalloc
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from training_ours import data_of

from runner.common.arrays import FloatArray
from runner.config.compose import compose_config
from runner.data.numericalize import Data
from runner.text.vocab import UNK
from runner.tracking.provenance import cpu_name
from tasks.baselines.baselines import token_rows, uniform
from tasks.baselines.kneser_ney import KneserNey, TokenRows, with_cache

FEATURE = "words"
WEIGHTS, WINDOWS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3), (100, 200, 500, 1000, 2000, 4000)
UNITS = {"line": ["task.unit=line"], "stream": ["task.unit=stream", "batching=stream"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder of the published data sets")
    parser.add_argument("--dataset", default="wikitext2", help="data set of words with a test split")
    parser.add_argument("--orders", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kenlm", type=Path, help="folder of KenLM's programs lmplz and query")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"dataset": options.dataset, "cpu": cpu_name(), "load_average_1_min": os.getloadavg()[0]}
    for unit, overrides in UNITS.items():
        data = read(options.dataset, options.data_dir, overrides)
        found[unit] = measure(data, options.orders, options.repeats)
        if options.kenlm and unit == "line":
            found["kenlm"] = kenlm(options.kenlm, data, options.orders)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read(dataset: str, data_dir: str, overrides: list[str]) -> Data:
    return data_of(compose_config(["task=lm", f"dataset={dataset}", f"data_dir={data_dir}", *overrides]).resolved)


def measure(data: Data, orders: list[int], repeats: int) -> dict[str, Any]:
    """Return the figures of each order, and of each cache with n-grams of the highest order."""
    vocab = data.vocabs["target"]
    train, valid, test = (token_rows(data.splits[name], FEATURE) for name in ("train", "valid", "test"))
    base = uniform(vocab)
    models = {order: timed(train, valid, test, base, order, repeats) for order in orders}
    longest = KneserNey(train, base, max(orders))
    probabilities = {"valid": longest.probabilities(valid), "test": longest.probabilities(test)}
    texts = {"valid": valid, "test": test}
    caches = [
        {"weight": weight, "window": window}
        | {name: perplexity(with_cache(probabilities[name], texts[name], weight, window)) for name in texts}
        for weight, window in product(WEIGHTS, WINDOWS)
    ]
    return {
        "tokens": {"train": int(train.is_target.sum()), "test": int(test.is_target.sum())},
        "vocabulary": len(vocab) - 1,
        "orders": models,
        "caches": sorted(caches, key=lambda one: float(one["valid"])),
    }


def timed(
    train: TokenRows, valid: TokenRows, test: TokenRows, base: FloatArray, order: int, repeats: int
) -> dict[str, float]:
    """Return the perplexities, seconds and memory of one order."""
    learning, answering = [], []
    for _ in range(repeats):
        begin = time.process_time()
        model = KneserNey(train, base, order)
        learning.append(time.process_time() - begin)
        begin = time.process_time()
        probabilities = model.probabilities(test)
        answering.append(time.process_time() - begin)
    tracemalloc.start()
    model = KneserNey(train, base, order)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "valid": perplexity(model.probabilities(valid)),
        "test": perplexity(probabilities),
        "learning_seconds": median(learning),
        "answering_seconds": median(answering),
        "peak_array_bytes": peak,
    }


def perplexity(probabilities: FloatArray) -> float:
    return float(np.exp(-np.log(probabilities).mean()))


def kenlm(programs: Path, data: Data, orders: list[int]) -> dict[int, dict[str, float]]:
    """Return KenLM's perplexity on test, and its seconds from file to file.

    Its text must not contain `<unk>`, which is therefore renamed.
    """
    vocab = data.vocabs["target"]
    names = np.array([token.replace(UNK, "[unk]") for token in vocab.tokens])
    names[vocab.eos] = "\n"
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in ("train", "test", "model")}
        for name in ("train", "test"):
            answers = names[data.splits[name].target.tokens().numpy()].tolist()  # type: ignore[union-attr]
            text = "".join(word if word == "\n" else f"{word} " for word in answers)
            files[name].write_text(text, encoding="utf-8")
        for order in filter(lambda order: order > 1, orders):  # lmplz does not accept order 1
            begin = children_seconds()
            with files["train"].open() as text_in, files["model"].open("w") as model_out:
                command = [str(programs / "lmplz"), "-o", str(order), "-S", "2G", "-T", folder]
                subprocess.run(command, stdin=text_in, stdout=model_out, stderr=subprocess.DEVNULL, check=True)
            seconds = children_seconds() - begin
            with files["test"].open() as text_in:
                command = [str(programs / "query"), "-v", "summary", str(files["model"])]
                said = subprocess.run(command, stdin=text_in, capture_output=True, text=True, check=True).stdout
            match = re.search(r"Perplexity including OOVs:\s+([\d.]+)", said)
            if match is None:
                raise ValueError(f"no perplexity in the output of query: {said!r}")
            found[order] = {"test": float(match[1]), "learning_seconds": seconds}
    return found


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(found: dict[str, Any]) -> None:
    console = Console()
    console.print(found["dataset"], found["cpu"])
    theirs = found.get("kenlm", {})
    for unit in UNITS:
        table = Table("order", "valid", "test", "learning s", "answering s", "MiB", "KenLM test", title=unit)
        for order, one in found[unit]["orders"].items():
            peer = f"{theirs[order]['test']:.2f}" if unit == "line" and order in theirs else ""
            seconds = [f"{one[f'{what}_seconds']:.2f}" for what in ("learning", "answering")]
            mebibytes = f"{one['peak_array_bytes'] / 2**20:.0f}"
            table.add_row(str(order), f"{one['valid']:.2f}", f"{one['test']:.2f}", *seconds, mebibytes, peer)
        console.print(table)
        for cache in found[unit]["caches"][:3]:
            console.print("cache: " + ", ".join(f"{name} {value:g}" for name, value in cache.items()))


if __name__ == "__main__":
    main()
