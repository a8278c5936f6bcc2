"""Train a character language model and a plain loop of the same size; compare bits per character and characters/s.

    python benchmarks/char_lm.py --data DATA --threads 2 --json benchmarks/results/char_lm.json

Both train an LSTM of 256 units on the characters of War and Peace with Adam at a constant rate, on the same streams and
windows, for the same number of updates. They take turns of a few updates. Hydromel runs `experiment=char_lm`.
Afterwards both read valid as 10 streams with carried state. Seconds are of training only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_ours import Ours

from runner.components.measures import Measures
from runner.config.compose import compose_config
from runner.tracking.provenance import cpu_name, git_commit
from runner.training.evaluation import evaluate

STREAMS = 10  # number of streams in evaluation
Update = Callable[[int], Any]
Bits = Callable[[], float]


class Plain(nn.Module):
    """A model as one writes it by hand."""

    def __init__(self, n_characters: int, size: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_characters, size)
        self.lstm = nn.LSTM(size, hidden)
        self.linear = nn.Linear(hidden, n_characters)

    def forward(self, characters: Tensor, state: Any) -> tuple[Tensor, Any]:
        output, state = self.lstm(self.embedding(characters), state)
        return self.linear(output), state


def plain(config: dict[str, Any], data: Any) -> tuple[Update, Bits]:
    """Return two functions of a plain loop: make update `number`, and compute bits per character of valid."""
    batching = config["batching"]
    n, window = batching["batch_size"], batching["window"]
    model = Plain(len(data.vocabs["target"]), config["embedding"]["size"], config["encoder"]["hidden"])
    optimizer = torch.optim.Adam(model.parameters(), config["optimizer"]["lr"])
    inputs, targets = (_columns(one, n) for one in _texts(data, "train"))
    state: Any = None

    def update(number: int) -> None:
        nonlocal state
        start = number * window % (len(inputs) // window * window)
        state = None if start == 0 or state is None else tuple(one.detach() for one in state)
        scores, state = model(inputs[start : start + window], state)
        loss = F.cross_entropy(scores.flatten(0, 1), targets[start : start + window].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config["train"]["clip_norm"])
        optimizer.step()

    @torch.no_grad()
    def bits() -> float:
        model.eval()
        columns = [_columns(one, STREAMS) for one in _texts(data, "valid")]
        state, total = None, 0.0
        for some, right in zip(*(one.split(500) for one in columns), strict=True):
            scores, state = model(some, state)
            total += float(F.cross_entropy(scores.flatten(0, 1), right.reshape(-1), reduction="sum"))
        return total / columns[0].numel() / math.log(2)

    return update, bits


def ours(config: dict[str, Any]) -> tuple[Ours, Update, Bits]:
    """Return Hydromel's model, and two functions like those of `plain`: an update, and bits per character of valid."""
    made = Ours(config)

    def bits() -> float:
        measures = Measures.of(made.task).start(made.data.vocabs)
        valid = made.batching.evaluation_batches(made.data.splits["valid"], 1)
        return float(evaluate(made.model, measures, valid, False)["bits_per_character"])

    return made, made.step, bits


def _texts(data: Any, split: str) -> tuple[Tensor, Tensor]:
    batch = data.splits[split]
    (inputs,) = batch.features.values()
    return inputs.values.long(), batch.target.values


def _columns(text: Tensor, n: int) -> Tensor:
    return text[: len(text) // n * n].view(n, -1).t().contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the published data sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--updates", type=int, default=900, help="updates of each model; 900 updates read the text once"
    )
    parser.add_argument("--turn", type=int, default=20, help="updates per turn")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = compose_config(
        ["experiment=char_lm", f"data_dir={options.data}", f"batching.evaluation_streams={STREAMS}"]
    ).resolved
    run, update, bits = ours(config)
    torch.manual_seed(config["seed"])
    sides = {"plain loop": plain(config, run.data), "hydromel": (update, bits)}
    seconds = dict.fromkeys(sides, 0.0)
    for start in range(0, options.updates, options.turn):
        for name, (update, _) in sides.items():
            begin = time.perf_counter()
            for number in range(start, min(start + options.turn, options.updates)):
                update(number)
            seconds[name] += time.perf_counter() - begin
    characters = options.updates * config["batching"]["batch_size"] * config["batching"]["window"]
    figures = {
        name: {"bits_per_character": bits(), "seconds": seconds[name], "characters_per_s": characters / seconds[name]}
        for name, (_, bits) in sides.items()
    }
    for name, one in figures.items():
        print(f"{name:>10}: {one['bits_per_character']:.3f} bits, {one['characters_per_s']:,.0f} characters/s")
    if options.json is not None:
        machine = {"cpu": cpu_name(), "threads": options.threads, "load_average": round(os.getloadavg()[0], 2)}
        facts = {"git_commit": git_commit(), "torch": torch.__version__, **machine, "updates": options.updates}
        options.json.write_text(json.dumps({**facts, **figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
