"""Compare layers with other ways to compute the same, forward and backward, on one CPU thread or on a GPU.

    python benchmarks/layers.py --data DATA --json benchmarks/results/layers.json

Lengths are those of shuffled batches of WNUT-17, UD EWT, SST-2 and newsgroups4; values are random.

- An LSTM, a GRU and a tanh RNN: Hydromel's (`ours`), torch's with a packed sequence (`packed`) and with a padded
  rectangle (`padded`).
- `convolution`: widths 3, 4 and 5 with 100 filters each, Hydromel's and `nn.Conv1d` on a padded rectangle.
- `largest`: the maximum over each row of 300 numbers per token, Hydromel's and `amax` over a padded rectangle.
- `dropout`: 104,000 numbers, by Hydromel and by torch.

Figures are real tokens (dropout: numbers) per second of CPU time, as medians of rounds in which all take turns; other
work on the machine hardly affects them. Ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from training_ours import compose, data_of

from runner.common.arrays import IntArray
from runner.layers.convolution import Convolution, convolve_parallel
from runner.layers.dropout import drop_values
from runner.layers.moves import permute
from runner.layers.pooling import max_pool
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.profiling.matmul import choose_matmul
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.tracking.provenance import cpu_name, git_commit

WORKS = {"WNUT-17": "tagger_wnut17", "UD EWT": "tagger_ewt", "SST-2": "conv_sst2", "newsgroups4": "conv_newsgroups4"}
RECURRENT: tuple[tuple[Cell, int], ...] = (  # cells and hidden sizes
    ("lstm", 100),
    ("lstm", 200),
    ("gru", 100),
    ("gru", 200),
    ("rnn", 100),
)
SIZE = 100  # input size of recurrent layers
WORD_VECTOR = 50  # input size of convolutions
FILTERS, WIDTHS = 100, (3, 4, 5)
Ways = dict[str, Callable[[], Tensor]]  # name -> function that computes an output; the first is Hydromel's


def lengths_of(work: str, data: str) -> IntArray:
    config = compose(work, data)
    return data_of(config).splits["train"].rows.host_lengths


def batches(lengths: IntArray, rows_at_once: int, size: int, device: torch.device) -> list[Ragged]:
    """Return some shuffled batches of random values, packed; a single one if rows are long."""
    rng = np.random.default_rng(1)
    n_batches = 3 if rows_at_once * lengths.mean() < 5000 else 1
    chosen = [rng.choice(lengths, rows_at_once, replace=False) for _ in range(n_batches)]
    values = [torch.randn(int(one.sum()), size).to(device) for one in chosen]
    return [Ragged(some, Rows(one, device), "packed") for some, one in zip(values, chosen, strict=True)]


def fresh(x: Ragged) -> Ragged:
    """Return the same values with new rows, which have no index maps yet, as in every update."""
    return Ragged(x.values.detach().requires_grad_(), Rows(x.rows.host_lengths, x.rows.device), "packed")


def recurrences(x: Ragged, cell: Cell, hidden: int) -> Ways:
    layer = Recurrence(cell, SIZE, hidden, reverse=False).to(x.rows.device)

    def packed() -> Tensor:
        read = fresh(x)
        time_major = read.rows.time_major
        inputs = permute(read.values, time_major.tokens, time_major.inverse)
        sequence, _ = layer.cell(PackedSequence(inputs, time_major.batch_sizes))
        return permute(sequence.data, time_major.inverse, time_major.tokens)

    def padded() -> Tensor:
        output: Tensor = layer.cell(fresh(x).pad().values)[0]
        return output

    return {"ours": lambda: layer(fresh(x), None)[0].values, "packed": packed, "padded": padded}


def convolutions(x: Ragged) -> Ways:
    layers = [Convolution(WORD_VECTOR, FILTERS, width, causal=False).to(x.rows.device) for width in WIDTHS]

    def padded() -> Tensor:
        read = fresh(x).pad().values.transpose(1, 2)
        return torch.cat([F.relu(one.convolution(F.pad(read, (one.left, one.right)))) for one in layers], dim=1)

    return {"ours": lambda: torch.relu(convolve_parallel(layers, fresh(x), None).values), "padded": padded}


def largest(x: Ragged) -> Ways:
    return {"ours": lambda: max_pool(fresh(x)), "padded": lambda: fresh(x).pad(-torch.inf).values.amax(dim=1)}


def dropouts(n_numbers: int, device: torch.device) -> Ways:
    values = torch.randn(n_numbers, device=device, requires_grad=True)
    return {"ours": lambda: drop_values(values, 0.5), "torch": lambda: F.dropout(values, 0.5)}


def contests(data: str, device: torch.device) -> Iterator[tuple[dict[str, Any], list[Ways], int]]:
    """Yield the description of each comparison, the ways of each of its batches, and the number of all tokens."""
    for name, work in WORKS.items():
        lengths = lengths_of(work, data)
        for rows_at_once in (32, 128):
            if rows_at_once * lengths.mean() > 20_000:
                continue
            for cell, hidden in RECURRENT:
                some = batches(lengths, rows_at_once, SIZE, device)
                said = {"layer": f"{cell}, {hidden}", "data": name, "rows": rows_at_once, "real_share": share(some)}
                ways = [recurrences(x, cell, hidden) for x in some]
                yield said, ways, sum(x.rows.n_tokens for x in some)
            for layer, make, size in (("convolution", convolutions, WORD_VECTOR), ("largest", largest, 300)):
                some = batches(lengths, rows_at_once, size, device)
                said = {"layer": layer, "data": name, "rows": rows_at_once, "real_share": share(some)}
                yield said, [make(x) for x in some], sum(x.rows.n_tokens for x in some)
    yield {"layer": "dropout", "data": "", "rows": 0, "real_share": 1.0}, [dropouts(104_000, device)], 104_000


def share(some: list[Ragged]) -> float:
    return sum(x.rows.n_tokens for x in some) / sum(x.rows.n_rows * x.rows.width for x in some)


def now(device: torch.device) -> float:
    """Return CPU seconds of the process; on a GPU wall-clock seconds once the device has finished."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measured(ways: list[Ways], tokens: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Return tokens/s of each way, measured in turns; the first round is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in ways[0]}
    for turn in range(1 + rounds):
        for name in list(rates)[:: 1 if turn % 2 else -1]:
            begin = now(device)
            for batch in ways:
                output = batch[name]()
                output.backward(torch.ones_like(output))  # type: ignore[no-untyped-call]
            rates[name].append(tokens / (now(device) - begin))
    ours, *others = [each[1:] for each in rates.values()]
    ratios = [median(mine / theirs for mine, theirs in zip(ours, other, strict=True)) for other in others]
    return {
        "tokens_per_s": {name: median(each[1:]) for name, each in rates.items()},
        "ratio_to": dict(zip(list(rates)[1:], ratios, strict=True)),
    }


def show(found: list[dict[str, Any]]) -> None:
    table = Table(
        "", "lengths", "rows", "real share", "ours", "packed", "padded", "by packed", "by padded", box=box.MARKDOWN
    )
    for one in found:
        rates, ratios = one["tokens_per_s"], one["ratio_to"]
        other = {"padded": rates.get("padded", rates.get("torch")), "packed": rates.get("packed")}
        by = {"padded": ratios.get("padded", ratios.get("torch")), "packed": ratios.get("packed")}
        figures = [
            f"{rates['ours']:,.0f}",
            *("" if other[key] is None else f"{other[key]:,.0f}" for key in ("packed", "padded")),
        ]
        figures += ["" if by[key] is None else f"{by[key]:.2f}" for key in ("packed", "padded")]
        table.add_row(one["layer"], one["data"], str(one["rows"] or ""), f"{one['real_share']:.2f}", *figures)
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the published data sets")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    choose_matmul("torch")
    device = torch.device(options.device)
    facts = {
        "git_commit": git_commit(),
        "torch": torch.__version__,
        "device": options.device,
        "cpu": cpu_name(),
        "threads": 1,
    }
    found = []
    for said, ways, tokens in contests(options.data, device):
        torch.manual_seed(1)
        found.append(
            said | {"load_average": round(os.getloadavg()[0], 1)} | measured(ways, tokens, options.rounds, device)
        )
        if options.json is not None:
            whole = facts | {"rounds": options.rounds, "measured": found}
            options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    show(found)


if __name__ == "__main__":
    main()
