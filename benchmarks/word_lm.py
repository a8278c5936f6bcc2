"""A word language model beside PyTorch's own example, word_language_model: training tokens/s, in one run.

    python benchmarks/word_lm.py --data DATA --threads 2 --json benchmarks/results/word_lm.json

Both train the same LSTM (200 numbers, 2 layers, dropout 0.2, untied, vocabulary of WikiText-2's 33,278) with plain SGD
and clipped gradients, on the same stream in the same windows of 35 tokens. The peer is the example's model and loop: a
decoder over the whole (T * B, V), log_softmax, NLLLoss, and a Python loop over parameters. Ours is `experiment=word_lm`
as it is configured, its own optimiser and clipping, but without the bookkeeping between updates (a run's `seconds` show
it). Each has a process of its own, with its own allocator; rounds of some updates are interleaved, and the first are
left out. A ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from training_ours import Ours

from runner.compose import compose_config
from runner.provenance import cpu_name, git_commit

PEER = "PyTorch's example"
OURS = {
    "float32": ["malloc=return"],
    "float32, malloc=keep": [],
    "float32, malloc=keep matmul=onednn": ["matmul=onednn"],
    "bfloat16 scores, malloc=keep matmul=onednn": ["matmul=onednn", "task.precision=bfloat16"],
}
RATE, CLIP = 20.0, 0.25
WARM_UP = 3  # rounds
Step = Callable[[int], tuple[Tensor, ...]]


class Peer(nn.Module):
    """The example's model: RNNModel with rnn_type LSTM."""

    def __init__(self, n_words: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.2)
        self.encoder = nn.Embedding(n_words, 200)
        self.rnn = nn.LSTM(200, 200, 2, dropout=0.2)
        self.decoder = nn.Linear(200, n_words)
        for weight in (self.encoder.weight, self.decoder.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, words: Tensor, hidden: Any) -> tuple[Tensor, Any]:
        output, hidden = self.rnn(self.drop(self.encoder(words)), hidden)
        decoded = self.decoder(self.drop(output))
        return decoded.view(-1, decoded.shape[-1]).log_softmax(dim=1), hidden


def peer_step(stream: Tensor, n_words: int, batch_size: int, window: int) -> Step:
    """The example's loop: streams in columns, windows down the rows."""
    columns = stream[: len(stream) // batch_size * batch_size].view(batch_size, -1).t().contiguous()
    model, criterion = Peer(n_words), nn.NLLLoss()
    hidden: Any = None

    def step(number: int) -> tuple[Tensor]:
        nonlocal hidden
        start = number * window % (len(columns) - window - 1)
        model.train()
        model.zero_grad()
        hidden = None if hidden is None else tuple(one.detach() for one in hidden)
        output, hidden = model(columns[start : start + window], hidden)
        loss: Tensor = criterion(output, columns[start + 1 : start + 1 + window].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data.add_(parameter.grad, alpha=-RATE)
        return (loss.detach(),)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the published data sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[20, 64], help="streams side by side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=6, help="of each, a round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    measured = [figures for size in options.batch_sizes for figures in measure(options, size)]
    show(measured)
    if options.json is not None:
        machine = {"cpu": cpu_name(), "threads": options.threads, "load_average": round(os.getloadavg()[0], 2)}
        facts = {"git_commit": git_commit(), "torch": torch.__version__, **machine, "rounds": options.rounds}
        options.json.write_text(json.dumps({**facts, "measured": measured}, indent=1) + "\n", encoding="utf-8")


def measure(options: argparse.Namespace, batch_size: int) -> list[dict[str, Any]]:
    """Training tokens/s of the peer and of each of ours, each in a process of its own; they take turns."""
    spawn = get_context("spawn")
    workers = {}
    for name in (PEER, *OURS):
        here, there = spawn.Pipe()
        spawn.Process(target=work, args=(name, there, options, batch_size), daemon=True).start()
        workers[name] = here
    windows = {name: int(worker.recv()) for name, worker in workers.items()}
    rates: dict[str, list[float]] = {name: [] for name in workers}
    losses: dict[str, float] = {}
    for turn in range(WARM_UP + options.rounds):
        for name, worker in workers.items():
            worker.send(options.updates)
            seconds, losses[name] = worker.recv()
            if turn >= WARM_UP:
                rates[name].append(options.updates * batch_size * windows[name] / seconds)
    for worker in workers.values():
        worker.send(0)
    return [
        {
            "batch_size": batch_size,
            "name": name,
            "tokens_per_s": median(rates[name]),
            "ratio": median(mine / peers for mine, peers in zip(rates[name], rates[PEER], strict=True)),
            "last_loss": losses[name],
        }
        for name in workers
    ]


def work(name: str, pipe: Connection, options: argparse.Namespace, batch_size: int) -> None:
    """Make so many updates as are asked for, again and again; 0 ends it."""
    torch.set_num_threads(options.threads)
    config = compose_config(
        [
            "experiment=word_lm",
            f"data_dir={options.data}",
            f"batching.batch_size={batch_size}",
            *OURS.get(name, ["malloc=return"]),
        ]
    )
    ours = Ours(config)
    window = config["batching"]["window"]
    step: Step = ours.step
    if name == PEER:
        torch.manual_seed(config["seed"])
        step = peer_step(ours.data.splits["train"].target.values, len(ours.data.vocabs["target"]), batch_size, window)
    pipe.send(window)
    done = 0
    while updates := pipe.recv():
        begin = time.perf_counter()
        for update in range(done, done + updates):
            loss = step(update)[0]
        pipe.send((time.perf_counter() - begin, float(loss)))
        done += updates


def show(measured: list[dict[str, Any]]) -> None:
    table = Table("streams", "", "tokens/s", "ratio", "loss", title="Training a word language model")
    for one in measured:
        table.add_row(
            str(one["batch_size"]),
            one["name"],
            f"{one['tokens_per_s']:,.0f}",
            f"{one['ratio']:.2f}",
            f"{one['last_loss']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
