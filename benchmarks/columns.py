"""Compare columns as they are cached here, memory-mapped int32, with the Arrow files of the library `datasets`.

    python benchmarks/columns.py --rows 2000000

Both have the same rows of about 20 ids. What is timed, in turns: a random batch of 32 rows as one packed tensor of ids
with the lengths of its rows, and writing and opening the columns. Arrow rows are read in three ways: as Python lists,
as numpy arrays (`with_format("numpy")`), and as a table (`with_format("arrow")`), whose ids are in one buffer. Times
are medians with their range, of wall time on one thread, with the files in the cache of the system.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import datasets
import numpy as np
import pyarrow as pa
import torch

from runner.common.arrays import IntArray
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows

BATCH, BLOCK, TURNS = 32, 100_000, 200
Ids = tuple[torch.Tensor, IntArray]  # the ids of a batch's tokens (N,), and the lengths of its rows (B,)


def written(ids: np.ndarray, lengths: IntArray, folder: Path) -> tuple[dict[str, float], dict[str, Callable]]:
    """Write both kinds of files and open them; return the seconds of each step, and functions that read rows."""
    seconds = {}
    begin = time.perf_counter()
    ids.tofile(folder / "ids")
    np.save(folder / "lengths.npy", lengths)
    seconds["columns, write"] = time.perf_counter() - begin
    begin = time.perf_counter()
    mapped = torch.from_numpy(np.memmap(folder / "ids", np.int32, mode="c"))
    column = Ragged(mapped, Rows(np.load(folder / "lengths.npy"), torch.device("cpu")), "packed")
    column.select(np.arange(BATCH))  # computes the offsets of all rows
    seconds["columns, open"] = time.perf_counter() - begin

    def ours(rows: IntArray) -> Ids:
        chosen = column.select(rows)
        return chosen.values, chosen.rows.host_lengths

    begin = time.perf_counter()
    ends = np.concatenate(([0], np.cumsum(lengths)))
    features = datasets.Features({"ids": datasets.Sequence(datasets.Value("int32"))})
    with datasets.arrow_writer.ArrowWriter(path=str(folder / "ids.arrow"), features=features) as writer:
        for first in range(0, len(lengths), BLOCK):
            block = ends[first : first + BLOCK + 1]
            part = pa.ListArray.from_arrays(pa.array(block - block[0], pa.int32()), pa.array(ids[block[0] : block[-1]]))
            writer.write_table(pa.table({"ids": part}))
        writer.finalize()
    seconds["Arrow, write"] = time.perf_counter() - begin
    begin = time.perf_counter()
    stored = datasets.Dataset.from_file(str(folder / "ids.arrow"))
    by_format = {name: stored.with_format(name) for name in ("numpy", "arrow")}
    stored[[0]]
    seconds["Arrow, open"] = time.perf_counter() - begin

    def lists(rows: IntArray) -> Ids:
        found = stored[rows.tolist()]["ids"]
        return torch.tensor([value for row in found for value in row], dtype=torch.int32), np.array([*map(len, found)])

    def arrays(rows: IntArray) -> Ids:
        found = by_format["numpy"][rows.tolist()]["ids"]
        parts = [np.asarray(row) for row in found]
        return torch.from_numpy(np.concatenate(parts).astype(np.int32)), np.array([len(part) for part in parts])

    def tables(rows: IntArray) -> Ids:
        found = by_format["arrow"][rows.tolist()]["ids"].combine_chunks()
        values = found.flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(values.copy()), np.diff(found.offsets.to_numpy())

    return seconds, {"columns": ours, "Arrow, lists": lists, "Arrow, numpy": arrays, "Arrow, table": tables}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(2.85, 0.55, options.rows), 1, 400).astype(np.int64)
    ids = rng.integers(0, 100_000, int(lengths.sum()), dtype=np.int32)
    with tempfile.TemporaryDirectory() as name:
        seconds, readers = written(ids, lengths, Path(name))
        taken: dict[str, list[float]] = {reader: [] for reader in readers}
        for turn in range(TURNS + 5):
            rows, read = rng.integers(0, options.rows, BATCH), {}
            for reader, batch in readers.items():
                begin = time.perf_counter()
                read[reader] = batch(rows)
                if turn >= 5:
                    taken[reader].append(1000 * (time.perf_counter() - begin))
            first, *others = read.values()
            assert all(torch.equal(first[0], other[0]) and (first[1] == other[1]).all() for other in others)
    print(f"{options.rows:,} rows, {len(ids):,} tokens")
    for step, value in seconds.items():
        print(f"{step:20} {value:8.2f} s")
    for reader, times in taken.items():
        print(f"{reader + ', batch':20} {median(times):8.3f} ms ({min(times):.3f}-{max(times):.3f})")


if __name__ == "__main__":
    main()
