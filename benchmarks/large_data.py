"""Measure CPU time and memory of reading corpora that may be larger than memory.

    python benchmarks/large_data.py --kind text --tokens 1000000 10000000 100000000 --folder /tmp/large

Texts have words by Zipf's law and log-normal lengths; sentences in CoNLL have tags of spans besides. They are made in
blocks, and removed after each size. A cold start reads the files and writes the cache, a second one maps it; each has a
fresh process. `peak_anonymous` is the largest resident memory without pages of files, which the system can take back
and processes share; `peak` includes those. `batch_ms` is the median time of selecting a random batch of 32 rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK_SENTENCES, VOCABULARY, BATCH = 100_000, 1_000_000, 32
MEAN_LENGTH = 20.2  # tokens of a sentence, about
OPTIONS = {
    "text": ("task=lm", "dataset=text", "features.words.min_count=2", "features.words.max_size=100000"),
    "conll": (
        "task=tag",
        "task.span_scheme=IOB2",
        "dataset=columns_file",
        "dataset.span_scheme=IOB2",
        "dataset.separator=space",
        "features.words.min_count=2",
    ),
}
WORDS = np.array([f"w{word}" for word in range(VOCABULARY)])
TAGS = np.array(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])


def write(path: Path, kind: str, n_tokens: int, seed: int) -> int:
    """Write about `n_tokens` tokens; return their exact number."""
    rng, written = np.random.default_rng(seed), 0
    share = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    vocabulary = pa.array(WORDS)
    with path.open("wb") as file:
        while written < n_tokens:
            count = max(1, min(BLOCK_SENTENCES, round((n_tokens - written) / MEAN_LENGTH)))
            lengths = np.clip(rng.lognormal(2.85, 0.55, count), 1, 400).astype(np.int64)
            drawn = np.searchsorted(share / share[-1], rng.random(int(lengths.sum())))
            words = vocabulary.take(pa.array(drawn))
            if kind == "conll":
                words = pc.binary_join_element_wise(words, pa.array(TAGS).take(pa.array(_tags(rng, lengths))), " ")
            offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
            lines = pc.binary_join(pa.ListArray.from_arrays(offsets, words), " " if kind == "text" else "\n")
            file.write(pc.binary_join(pa.array([lines.to_pylist()]), "\n" * (1 + (kind == "conll")))[0].as_buffer())
            file.write(b"\n" * (1 + (kind == "conll")))
            written += int(lengths.sum())
    return written


def _tags(rng: np.random.Generator, lengths: np.ndarray) -> np.ndarray:
    """Return tags in IOB2 (N,): one token in ten begins a span, and may be followed by one inside."""
    tags = np.where(rng.random(int(lengths.sum())) < 0.1, rng.choice([1, 3], int(lengths.sum())), 0)
    starts = np.cumsum(lengths) - lengths
    inside = (tags == 0) & (np.roll(tags, 1) > 0) & (rng.random(len(tags)) < 0.5)
    inside[starts] = False
    return np.where(inside, np.roll(tags, 1) + 1, tags)


def anonymous_bytes() -> int:
    """Return the resident memory of this process without pages of files."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def start(kind: str, folder: Path) -> None:
    """Read or map the corpus in this process, and print figures as JSON."""
    import torch

    from runner.components.model_parts import ModelParts
    from runner.config.compose import compose_config
    from runner.data.numericalize import load_data
    from runner.data.truncation import Truncation

    torch.set_num_threads(1)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], anonymous_bytes())

    threading.Thread(target=watch, daemon=True).start()
    files = (f"data_dir={folder}", "dataset.train=train", "dataset.valid=valid", "dataset.test=null")
    parts = ModelParts.of(compose_config([*OPTIONS[kind], *files, "dataset.test_fraction=0.0"]), [])
    before, wall = time.process_time(), time.perf_counter()
    data = load_data(parts, Truncation(None, "head"), str(folder / "cache"))
    found = {"cpu_seconds": time.process_time() - before, "seconds": time.perf_counter() - wall}
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    train, rng, seconds = data.splits["train"], np.random.default_rng(1), []
    for _ in range(200):
        rows = rng.integers(0, train.rows.n_rows, BATCH)
        before = time.perf_counter()
        train.select(rows)
        seconds.append(time.perf_counter() - before)
    done.set()
    found |= {"batch_ms": 1000 * float(np.median(seconds)), "peak_anonymous": peak[0], "cached": data.cached}
    print(json.dumps(found | {"tokens": train.real_tokens, "rows": train.rows.n_rows}))


def measure(kind: str, n_tokens: int, folder: Path) -> dict[str, object]:
    """Return the figures of one size."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        tokens = write(folder / "train", kind, n_tokens, 1) + write(folder / "valid", kind, min(n_tokens, 100_000), 2)
        found: dict[str, object] = {"kind": kind, "tokens": tokens, "bytes": (folder / "train").stat().st_size}
        for name in ("cold", "second"):
            time.sleep(3)  # hashes of files that changed just now are not remembered
            command = [sys.executable, __file__, "--kind", kind, "--start", str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
        return found
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(OPTIONS), default="text")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, default=Path("large_data"), help="for the files, which are removed")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start(options.kind, options.start)
        return
    figures = []
    for n_tokens in options.tokens:
        figures.append(measure(options.kind, n_tokens, options.folder))
        print(json.dumps(figures[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
