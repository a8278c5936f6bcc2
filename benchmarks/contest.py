"""A contest: entrants do the same work, each in a process of its own, in turns.

A worker builds its model and sends `ready`. For each number n > 0 that it receives, it makes n updates and sends a
`Turn`. For 0 it sends its memory, and the kernels of one more update, and ends.

The order reverses from turn to turn (a b c, c b a, ...), so that a machine that slows down affects all entrants
equally. A ratio is the median over rounds of the ratios within a round.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor

from runner.common.errors import HydromelError, missing_kernel
from runner.profiling.accounting import Memory
from runner.profiling.kernels import KernelWatch

Step = Callable[[int], tuple[Tensor, int, int]]  # number of an update -> its loss, real tokens, padded positions
Clock = Literal["seconds", "cpu_seconds"]


class NotRunHere(HydromelError):
    """This machine lacks a kernel that an entrant needs."""


@dataclass(frozen=True)
class Entrant:
    """An entrant of a contest: its worker is called as `work(pipe, device, threads, *arguments)`."""

    work: Callable[..., None]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Turn:
    """The result of some updates: seconds, number of real tokens and of padded positions, and mean loss."""

    seconds: float
    cpu_seconds: float
    tokens: int
    padding: int
    loss: float


@dataclass(frozen=True)
class Score:
    """The turns of one entrant without the warm-up, and its memory in bytes.

    Memory is that of its process, or on a GPU of the allocator.
    """

    turns: list[Turn]
    first_loss: float
    updates: int
    memory: dict[str, int | str]
    kernels: str

    def padding_share(self) -> float:
        """Return padding as a share of all positions in memory, 0 to 1."""
        padding = sum(turn.padding for turn in self.turns)
        return padding / (padding + sum(turn.tokens for turn in self.turns))

    def rates(self, clock: Clock) -> list[float]:
        return [turn.tokens / asdict(turn)[clock] for turn in self.turns]


def compete(
    entrants: Mapping[str, Entrant], device: str, threads: int, warm_up: int, rounds: int, updates: int
) -> tuple[dict[str, Score], dict[str, str]]:
    """Run `rounds` rounds of `updates` updates of every entrant, after `warm_up` further rounds.

    Returns:
        The scores, and for entrants that this machine cannot run the missing kernel.
    """
    workers = {name: started(entrant.work, device, threads, *entrant.arguments) for name, entrant in entrants.items()}
    not_run: dict[str, str] = {}

    def answer(name: str) -> Any:
        """Return the answer of a worker; None if this machine lacks a kernel for its work, which removes it."""
        try:
            return received(workers[name], name)
        except NotRunHere as missing:
            not_run[name] = str(missing)
            del workers[name]
            return None

    for name in list(workers):
        answer(name)  # wait until all are ready
    turns: dict[str, list[Turn]] = {name: [] for name in workers}
    for turn in range(warm_up + rounds):
        for name in list(workers)[:: 1 if turn % 2 else -1]:
            workers[name].send(updates)
            if (seconds := answer(name)) is not None:
                turns[name].append(seconds)
    for pipe in workers.values():
        pipe.send(0)
    scores = {
        name: Score(turns[name][warm_up:], turns[name][0].loss, updates * len(turns[name]), *received(pipe, name))
        for name, pipe in workers.items()
    }
    return scores, not_run


def ratios(score: Score, reference: Score, clock: Clock) -> list[float]:
    """Return how many times as fast as the reference an entrant was in each round."""
    return [mine / theirs for mine, theirs in zip(score.rates(clock), reference.rates(clock), strict=True)]


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "low": min(values), "high": max(values)}


def started(target: Callable[..., None], *arguments: Any) -> Connection:
    """Start a process that runs `target`, and return the pipe to it."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    spawn.Process(target=_answering, args=(target, there, *arguments), daemon=True).start()
    there.close()  # so that `recv` ends if the process has failed
    return here


def received(pipe: Connection, name: str) -> Any:
    """Return the answer of a worker. Raises HydromelError if it failed, NotRunHere if it lacks a kernel."""
    try:
        answer = pipe.recv()
    except EOFError:
        raise HydromelError(f"{name} failed; its error is above") from None
    if isinstance(answer, NotRunHere):
        raise answer
    if isinstance(answer, HydromelError):
        raise HydromelError(f"{name}: {answer}")
    return answer


def _answering(target: Callable[..., None], pipe: Connection, *arguments: Any) -> None:
    """Run a worker that sends mistakes of the user to the other end, and ends silently when that end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    try:
        target(pipe, *arguments)
    except HydromelError as mistake:
        pipe.send(mistake)
    except RuntimeError as error:
        if not (missing := missing_kernel(error)):
            raise
        pipe.send(NotRunHere(missing))
    except (EOFError, BrokenPipeError):
        return


def stepping(make: Callable[..., Step], *arguments: Any) -> Entrant:
    """Return an entrant whose process makes its updates by calling the step that `make(*arguments)` returns there."""
    return Entrant(_steps, (make, *arguments))


def _steps(pipe: Connection, device: str, threads: int, make: Callable[..., Step], *arguments: Any) -> None:
    torch.set_num_threads(threads)
    step = make(*arguments)
    memory = Memory(torch.device(device))
    pipe.send("ready")
    numbers = count()
    while updates := pipe.recv():
        wall, cpu = time.perf_counter(), time.process_time()
        losses, tokens, padding = zip(*(step(next(numbers)) for _ in range(updates)), strict=True)
        loss = float(torch.stack(losses).mean())  # this waits for the device
        pipe.send(Turn(time.perf_counter() - wall, time.process_time() - cpu, sum(tokens), sum(padding), loss))
    state = memory.state()
    with KernelWatch() as watch:
        step(next(numbers))
    pipe.send((state, watch.names()))
