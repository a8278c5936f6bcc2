"""Entrants of `contest.py` that train: ours, a model written by hand in the usual loop, and the same in a Trainer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from contest import Step, Turn
from torch import Tensor, nn
from training_ours import Ours, compose
from training_peers import optimizer_of, trained_numbers

from runner.accounting import Memory
from runner.batch import Batch
from runner.embeddings.vectors import Vectors
from runner.model import parameter_count
from runner.train import device_of

SAME_LOSS = 1e-4  # how far two models may be apart, relative
MakePeer = Callable[[Any, Batch], Any]  # our model, the rows of train -> the same model by hand, whose call is a loss


def our_step(work: str, data: str, *more: str) -> Step:
    ours = Ours(compose(work, data, *more))
    ours.model.train()
    return ours.step


def hand_step(make: MakePeer, work: str, data: str, *more: str) -> Step:
    """The usual loop over shuffled rows."""
    ours, peer, optimizer = made_peer(make, work, data, *more)
    device, rows_at_once, clip = (
        device_of(peer),
        ours.config["batching"]["batch_size"],
        ours.config["train"]["clip_norm"],
    )
    lengths, order = ours.train.rows.host_lengths, np.random.default_rng(1)
    batches = iter(())

    def step(number: int) -> tuple[Tensor, int]:
        nonlocal batches
        rows = next(batches, None)
        if rows is None:
            batches = iter(np.split(order.permutation(len(lengths)), range(rows_at_once, len(lengths), rows_at_once)))
            rows = next(batches)
        optimizer.zero_grad()
        batch = peer.collate(rows.tolist())
        loss = peer(**{name: one if name == "lengths" else one.to(device) for name, one in batch.items()})
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), clip)
        optimizer.step()
        return loss.detach(), int(lengths[rows].sum())

    return step


def made_peer(make: MakePeer, work: str, data: str, *more: str) -> tuple[Ours, Any, torch.optim.Optimizer]:
    """Ours, the peer and its optimiser; fails where the peer is not the same model."""
    ours = Ours(compose(work, data, "batching=padmask", f"batching.batch_size={batch_size_of(work, data)}", *more))
    device = device_of(ours.model)
    peer = make(ours.model.cpu(), ours.train.to(torch.device("cpu"))).to(device)
    ours.model.to(device)
    assert trained_numbers(peer) == parameter_count(ours.model), "another number of parameters"
    apart = apart_from(peer, ours)
    assert apart < SAME_LOSS or getattr(peer, "width", None), f"another model: losses are {apart:.1e} apart"
    rates = (one.rates["rows"] for one in ours.model.modules() if isinstance(one, Vectors))
    return ours, peer, optimizer_of(peer, ours.config["optimizer"]["lr"], next(rates))


def batch_size_of(work: str, data: str) -> int:
    """As the work has it, whatever the strategy."""
    return int(compose(work, data)["batching"]["batch_size"])


def apart_from(peer: Any, ours: Ours) -> float:
    """How far the losses of the same rows, without dropout, are from one another, relative."""
    rows = ours.rows(0)
    (batch,) = ours.batching.micro_batches(ours.train, rows)
    ours.model.eval()
    peer.eval()
    with torch.no_grad():
        loss = ours.model.head.loss(ours.model(batch, None)[0], batch)
        theirs = peer(**{name: one.to(device_of(peer)) for name, one in peer.collate(rows.tolist()).items()})
        apart = abs(float(theirs) / (float(loss.total) / loss.count) - 1)
    ours.model.train()
    peer.train()
    return apart


class WithLoss(nn.Module):
    """A peer as a Trainer wants a model: keyword arguments in, a dict with the loss out."""

    accepts_loss_kwargs = False  # the loss is a mean already

    def __init__(self, peer: Any) -> None:
        super().__init__()
        self.peer = peer

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return {"loss": self.peer(**batch)}


def trainer_work(pipe: Connection, device: str, threads: int, make: MakePeer, work: str, data: str, *more: str) -> None:
    """The worker of transformers.Trainer with batches grouped by length; its turns end where its steps do."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    torch.set_num_threads(threads)
    ours, peer, optimizer = made_peer(make, work, data, *more)
    lengths = ours.train.rows.host_lengths
    tokens: deque[int] = deque()  # of batches that were collated and not trained on yet

    def collate(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        tokens.append(sum(len(one["input_ids"]) for one in examples))
        return dict(peer.collate([one["row"] for one in examples]))

    class Turns(TrainerCallback):  # type: ignore[misc]
        """Waits at the begin of each turn, and tells at its end."""

        def __init__(self) -> None:
            self.left, self.tokens = 0, 0

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.left == 0:
                self.left, self.tokens = pipe.recv(), 0
                if not self.left:
                    control.should_training_stop = True
                self.wall, self.cpu = time.perf_counter(), time.process_time()
            self.tokens += tokens.popleft()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.left == 0:
                return
            self.left -= 1
            if self.left == 0:
                if device == "cuda":
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - self.wall, time.process_time() - self.cpu
                pipe.send(Turn(*seconds, self.tokens, losses.mean_since_last()))

    class Losses:
        """Kept on the device until a turn is over."""

        def __init__(self) -> None:
            self.kept: list[Tensor] = []

        def mean_since_last(self) -> float:
            mean = float(torch.stack(self.kept).mean())
            self.kept.clear()
            return mean

    losses = Losses()
    model = WithLoss(peer)
    model.register_forward_hook(lambda _module, _inputs, output: losses.kept.append(output["loss"].detach()))
    rows = [{"row": row, "input_ids": range(length)} for row, length in enumerate(lengths.tolist())]
    arguments = TrainingArguments(
        output_dir="unused",
        per_device_train_batch_size=ours.config["batching"]["batch_size"],
        train_sampling_strategy="group_by_length",
        max_steps=10**9,
        max_grad_norm=ours.config["train"]["clip_norm"],
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
    )
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collate,
        train_dataset=rows,
        optimizers=(optimizer, constant),
        callbacks=[Turns()],
    )
    trainer.remove_callback(PrinterCallback)
    memory = Memory(torch.device(device))
    pipe.send("ready")
    trainer.train()
    pipe.send(memory.state())
