"""Measure how time and memory grow with the corpus: writing a file, planning an epoch, selecting its batches.

    python benchmarks/growth.py --sizes 10000 100000 1000000 --json growth.json

Sentences are synthetic: words by Zipf's law, lengths log-normal around 20. Each size has a fresh process, so that its
peak memory is its own. Seconds are of one pass over all rows (an epoch) on one thread. `peak_before_plans` is the peak
of making, writing and numericalising the corpus. If `peak` is no higher, planning and selecting fitted into memory that
was free again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from rich.console import Console
from rich.table import Table

from runner.batching.bucketed import Bucketed
from runner.batching.plan import Plan
from runner.batching.same_length import SameLength
from runner.batching.shuffled import Shuffled
from runner.batching.strategy import Batching
from runner.batching.token_budget import TokenBudget
from runner.components.model_parts import ModelParts
from runner.config.compose import compose_config
from runner.data.numericalize import load_data
from runner.data.truncation import Truncation
from runner.profiling.accounting import Memory
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

IntArray = npt.NDArray[np.int64]
BATCH_SIZE, VOCABULARY, CLASSES = 32, 50_000, 5
PLANS: dict[str, Plan] = {
    "shuffled": Shuffled(batch_size=BATCH_SIZE),
    "same_length": SameLength(batch_size=BATCH_SIZE),
    "bucketed": Bucketed(batch_size=BATCH_SIZE, buckets=10),
    "token_budget": TokenBudget(max_tokens=1024, batch_size=None, buckets=None),
}


def synthetic(n_sentences: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return lengths (B,), word ids (N,) from 1, and classes (B,)."""
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(2.85, 0.55, n_sentences), 1, 400).astype(np.int64)
    share = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    words = np.searchsorted(share / share[-1], rng.random(int(lengths.sum()))) + 1
    return lengths, words, rng.integers(0, CLASSES, n_sentences)


def write(path: Path, lengths: IntArray, words: IntArray, classes: IntArray) -> None:
    """Write a `LABEL text` file like those of published corpora, one sentence per line."""
    spelled = pa.DictionaryArray.from_arrays(words - 1, [f"w{word}" for word in range(VOCABULARY)]).cast(pa.string())
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    text = pc.binary_join(pa.ListArray.from_arrays(offsets, spelled), " ")
    lines = pc.binary_join_element_wise(pa.array(classes).cast(pa.string()), text, " ")
    path.write_text("\n".join(lines.to_pylist()) + "\n", encoding="utf-8")


def numericalise(folder: Path) -> None:
    """Read the file, cut valid from it, make the vocabulary and integer columns, and cache them (or read the cache)."""
    options = (
        "task=classify",
        "dataset=labelled",
        f"data_dir={folder}",
        "dataset.train=corpus.txt",
        "dataset.cut=hash",
    )
    cut = ("dataset.valid_fraction=0.01", "dataset.test_fraction=0.0")
    words = ("features.words.lowercase=false", "features.words.min_count=2", "features.words.max_size=null")
    config = compose_config([*options, *cut, *words])
    load_data(ModelParts.of(config, []), Truncation(None, "head"), str(folder / "cache"))


def as_split(lengths: IntArray, words: IntArray, classes: IntArray) -> Batch:
    """Return the numericalised corpus: two features, and one class per row."""
    rows = Rows(lengths, torch.device("cpu"))
    ids = torch.from_numpy(words.astype(np.int32))
    features = {"word": Ragged(ids, rows, "packed"), "shape": Ragged(ids % 64, rows, "packed")}
    return Batch(features, torch.from_numpy(classes), np.arange(len(lengths)))


def select_all(batching: Batching, split: Batch, updates: Sequence[IntArray]) -> None:
    for update in updates:
        for _ in batching.micro_batches(split, update):
            pass


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(n_sentences: int) -> dict[str, float]:
    """Return the seconds of each phase, and the peak memory of this process in bytes."""
    torch.set_num_threads(1)
    memory = Memory(torch.device("cpu"))
    lengths, words, classes = synthetic(n_sentences)
    found: dict[str, float] = {"sentences": n_sentences, "tokens": len(words)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        found["write_seconds"] = seconds(partial(write, path, lengths, words, classes))
        found["file_bytes"] = path.stat().st_size
        for name in ("numericalise", "from_cache"):
            found[f"{name}_seconds"] = seconds(partial(numericalise, Path(folder)))
    found["peak_before_plans_bytes"] = int(memory.state()["peak_bytes"])
    for name, plan in PLANS.items():
        found[f"plan_{name}_seconds"] = seconds(partial(plan, lengths, np.random.default_rng([1, 0])))
    split = as_split(lengths, words, classes)
    updates = PLANS["shuffled"](lengths, np.random.default_rng([1, 0]))
    for layout in ("packed", "padded"):
        batching = Batching(
            name=layout,
            batch_size=BATCH_SIZE,
            plan=PLANS["shuffled"],
            micro_batch=None,
            layout=layout,
            width_multiple=1,
        )
        found[f"select_{layout}_seconds"] = seconds(partial(select_all, batching, split, updates))
        found[f"select_{layout}_batch_microseconds"] = 1e6 * found[f"select_{layout}_seconds"] / len(updates)
    found["peak_bytes"] = int(memory.state()["peak_bytes"])
    return found


def in_a_fresh_process(n_sentences: int) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(measure, n_sentences).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="sentences")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = [in_a_fresh_process(size) for size in options.sizes]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)


def show(figures: list[dict[str, float]]) -> None:
    table = Table("sentences", *(f"{one['sentences']:,}" for one in figures), title="Growth with the corpus")
    for name in list(figures[0])[1:]:
        shown = [one[name] for one in figures]
        scale, digits = (2**20, 0) if name.endswith("_bytes") else (1, 0 if isinstance(shown[0], int) else 4)
        label = name.replace("_bytes", " MiB").replace("_", " ")
        table.add_row(label, *(f"{value / scale:,.{digits}f}" for value in shown))
    Console().print(table)


if __name__ == "__main__":
    main()
