"""What benchmarks of training measure of ours: the configured model, optimiser and clipping; and processes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from runner.build import build
from runner.compose import compose_config
from runner.data import arrange, load_data
from runner.experiment import build_optimizer
from runner.malloc import choose_malloc
from runner.matmul import choose_matmul
from runner.model import build_model
from runner.task import START
from runner.train import backward

WORKS = {
    "tagger": ["experiment=wnut17", "task.head=crf", "task.constraints=both", "task.label_weights=null"],
    "conv": ["experiment=sst2_conv"],
    "lstm": ["experiment=sst2_lstm"],
}
Config = dict[str, Any]


class Ours:
    """What a run trains, and what `runner.train` does at each update."""

    def __init__(self, config: Config) -> None:
        choose_matmul(config["matmul"])
        choose_malloc(config["malloc"])
        self.config = config
        self.task = build(config["task"], "task", {})
        self.data = load_data(config, self.task)
        self.batching = build(config["batching"], "batching", {})
        self.train = arrange(config, self.batching, self.data.splits["train"])
        torch.manual_seed(config["seed"])
        self.model = build_model(config, self.task, self.data.vocabs, [])
        self.optimizer = build_optimizer(config, self.model)
        self.epochs: dict[int, list[Any]] = {}
        self.carried: Any = START

    def rows(self, number: int) -> Any:
        """The rows of an update, epoch after epoch."""
        epoch, place = divmod(number, len(self._updates(0)))
        updates = self._updates(epoch)
        return updates[place % len(updates)]

    def _updates(self, epoch: int) -> list[Any]:
        """Planned once, as in a run."""
        if epoch not in self.epochs:
            self.epochs[epoch] = self.batching.updates(self.train.rows.host_lengths, self.config["seed"], epoch)
        return self.epochs[epoch]

    def step(self, number: int) -> tuple[Tensor, int]:
        rows = self.rows(number)
        batches = list(self.batching.micro_batches(self.train, rows))
        answers = sum(self.task.count(batch) for batch in batches)
        if number % len(self._updates(0)) == 0:
            self.carried = START
        loss, self.carried = backward(
            self.model, self.model.head, batches, answers, self.carried, False, lambda lap: None
        )
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config["train"]["clip_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss, int(self.train.rows.host_lengths[rows].sum())


def compose(work: str, options: argparse.Namespace, *more: str) -> Config:
    return compose_config([*WORKS[work], f"data_dir={options.data}", "tracker=none", "schedule=constant", *more])


def started(
    target: Callable[..., None], options: argparse.Namespace, work: str, threads: int, *more: Any
) -> Connection:
    """The pipe to a new process."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    spawn.Process(target=target, args=(there, options, work, threads, *more), daemon=True).start()
    there.close()  # so that waiting for a process that failed ends
    return here
