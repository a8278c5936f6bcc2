"""The entrant of `contest.py` that trains with transformers.Trainer, with batches grouped by length."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

import torch
from contest import Turn
from torch import Tensor, nn
from training_steps import MakePeer, made_peer, tokens_of
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from runner.profiling.accounting import Memory
from runner.profiling.kernels import KernelWatch


class Peer(nn.Module):
    """A model by hand as a Trainer needs it: keyword arguments in, a dict with the loss out.

    Attributes:
        tokens: real tokens and padded positions of each batch that was collated but not trained on yet.
        losses: the losses since the last call of `mean_loss`, on the device.
    """

    accepts_loss_kwargs = False  # the loss is already a mean

    def __init__(self, by_hand: Any) -> None:
        super().__init__()
        self.by_hand = by_hand
        self.tokens: deque[tuple[int, int]] = deque()
        self.losses: list[Tensor] = []

    def collate(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = dict(self.by_hand.collate([one["row"] for one in examples]))
        self.tokens.append(tokens_of(batch))
        return batch

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        loss = self.by_hand(**batch)
        self.losses.append(loss.detach())
        return {"loss": loss}

    def mean_loss(self) -> float:
        """Return the mean loss of the batches since the last call; waits for the device."""
        mean = float(torch.stack(self.losses).mean())
        self.losses.clear()
        return mean


class Turns(TrainerCallback):  # type: ignore[misc]
    """A callback that waits for the start of each turn, and sends a `Turn` at its end; both lie between steps."""

    def __init__(self, pipe: Connection, peer: Peer) -> None:
        self.pipe, self.peer, self.left, self.tokens, self.padding = pipe, peer, 0, 0, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.left == 0:
            self.left, self.tokens, self.padding = self.pipe.recv(), 0, 0
            control.should_training_stop = self.left == 0
            self.wall, self.cpu = time.perf_counter(), time.process_time()
        real, padding = self.peer.tokens.popleft()
        self.tokens, self.padding = self.tokens + real, self.padding + padding

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.left == 0:  # the step after the last turn
            control.should_training_stop = True
            return
        self.left -= 1
        if self.left == 0:
            loss = self.peer.mean_loss()
            seconds = time.perf_counter() - self.wall, time.process_time() - self.cpu
            self.pipe.send(Turn(*seconds, self.tokens, self.padding, loss))


def trainer_work(pipe: Connection, device: str, threads: int, make: MakePeer, work: str, data: str, *more: str) -> None:
    """Run the worker of this entrant."""
    torch.set_num_threads(threads)
    ours, by_hand, optimizer = made_peer(make, False, work, data, *more)
    peer = Peer(by_hand)
    lengths = ours.train.rows.host_lengths.tolist()
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Trainer(
        model=peer,
        args=arguments(ours.config, device),
        data_collator=peer.collate,
        train_dataset=[{"row": row, "input_ids": range(length)} for row, length in enumerate(lengths)],
        optimizers=(optimizer, constant),
        callbacks=[Turns(pipe, peer)],
    )
    trainer.remove_callback(PrinterCallback)
    memory = Memory(torch.device(device))
    pipe.send("ready")
    trainer.train()
    state = memory.state()
    with KernelWatch() as watch:
        by_hand(**by_hand.collate(list(range(ours.config["batching"]["batch_size"]))))
    pipe.send((state, watch.names()))


def arguments(config: dict[str, Any], device: str) -> TrainingArguments:
    """Return arguments with Hydromel's batch size and clipping; nothing is logged or saved."""
    return TrainingArguments(
        output_dir=tempfile.gettempdir(),  # required, but nothing is written to it
        per_device_train_batch_size=config["batching"]["batch_size"],
        train_sampling_strategy="group_by_length",
        max_steps=10**9,
        max_grad_norm=config["train"]["clip_norm"],
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
    )
