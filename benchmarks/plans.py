"""Measure the CPU time and the peak memory of an epoch's plan: `python benchmarks/plans.py --rows 10000000 100000000`.

Lengths are log-normal. Each plan has a fresh process; its peak does not count the lengths themselves (int64, 8 bytes a
row) and the program. `visit_s` is the time of taking every update once, in order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from resource import RUSAGE_SELF, getrusage

import numpy as np

from runner.batching.bucketed import Bucketed
from runner.batching.plan import Plan
from runner.batching.same_length import SameLength
from runner.batching.shuffled import Shuffled
from runner.batching.token_budget import TokenBudget

PLANS: dict[str, Plan] = {
    "shuffled": Shuffled(batch_size=32),
    "bucketed": Bucketed(batch_size=32, buckets=None),
    "same_length": SameLength(batch_size=32),
    "token_budget": TokenBudget(max_tokens=None, batch_size=32, buckets=None),
}


def measure(name: str, n_rows: int) -> None:
    lengths = np.empty(n_rows, dtype=np.int64)
    rng = np.random.default_rng(0)
    for start in range(0, n_rows, 2**20):
        part = lengths[start : start + 2**20]
        part[:] = np.clip(rng.lognormal(2.85, 0.55, len(part)), 1, 400)
    before, begin = getrusage(RUSAGE_SELF).ru_maxrss, time.process_time()
    updates = PLANS[name](lengths, np.random.default_rng([1, 0]))
    seconds, peak = time.process_time() - begin, getrusage(RUSAGE_SELF).ru_maxrss - before
    begin = time.process_time()
    visited = sum(len(update) for update in updates)
    assert visited == n_rows
    visit = time.process_time() - begin
    print(f"| {n_rows:,} | {name} | {len(updates):,} | {seconds:.2f} | {visit:.2f} | {peak / 1024:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7])
    given = parser.parse_args()
    print("| rows | plan | updates | CPU s | visit s | peak MiB |\n|---:|---|---:|---:|---:|---:|")
    for n_rows in given.rows:
        for name in PLANS:
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(name, n_rows))
            process.start()
            process.join()


if __name__ == "__main__":
    main()
