"""The ranks of a run: processes that train one model together, each on its own rows of every update.

Every rank has the same parameters, since each adds the same sum of gradients. torchrun, or `runner.distributed.launch`,
starts the processes and tells them their number in the environment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from runner.common.errors import HydromelError, ran_out
from runner.distributed.environment import LOCAL_RANK, RANK, WORLD, LostRank, is_rank
from runner.terminal.interruption import interruption

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)  # how long a rank waits for the others, which may be reading data
_BUCKET_BYTES = 25 * 2**20  # gradients that travel together
_TABLE = 2**20  # numbers of a table of which only the touched rows travel
_LOST, _RAN_OUT = 1_000_000, 1  # how a rank failed, as added up over ranks
_SPARSE = 1_000_000  # a sparse gradient, likewise


class OutOfMemoryElsewhere(MemoryError):
    """Another rank's share of the update did not fit into memory."""


@dataclass(frozen=True)
class Ranks:
    """One of `world` ranks, number `rank` from 0. Alone, nothing is exchanged.

    Args:
        host: the group that exchanges numbers between the hosts' memories, without waiting for a GPU.
    """

    rank: int = 0
    world: int = 1
    host: ProcessGroup | None = field(default=None, compare=False)

    @property
    def is_first(self) -> bool:
        """True in the rank that writes the run's folder and the console."""
        return self.rank == 0

    def mean_gradients(self, model: nn.Module, compute: Callable[[], tuple[Tensor, int]]) -> tuple[Tensor, int]:
        """Return the mean loss, (), of an update and its targets, and leave the mean's gradients in every rank.

        `compute` adds the gradients of this rank's share and returns its loss, (), and its number of targets: alone the
        mean loss, otherwise the sum over its targets, of which it may have none.

        Raises:
            OutOfMemoryElsewhere: another rank ran out of memory.
            LostRank: another rank has ended.
        """
        if self.world == 1:
            return compute()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        try:
            loss, count = compute()
        except BaseException as error:
            with contextlib.suppress(LostRank):
                self._sums([_RAN_OUT if ran_out(error) else _LOST, 0, 0, 0, *[0] * len(parameters)])
            raise
        on_host = loss.device.type == "cpu"  # a GPU's loss travels with the gradients, so that nothing waits for it
        kinds = [_kind(parameter.grad) for parameter in parameters]
        targets, total, *anywhere = self.agree_on_update([count, loss.item() if on_host else 0.0, *kinds])
        for parameter, ranks in zip(parameters, anywhere, strict=True):
            if ranks and parameter.grad is None:
                zeros = torch.zeros_like(parameter)
                parameter.grad = zeros.to_sparse(1) if ranks >= _SPARSE else zeros
        # the same type in a rank without rows
        loss = torch.tensor(total, dtype=torch.float64) if on_host else loss.double()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.add(gradients if on_host else [*gradients, loss])
        for tensor in (*gradients, loss):
            tensor.mul_(1 / max(1.0, targets))
        return loss, int(targets)

    def agree_on_update(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over all ranks, at the end of an update that no rank failed.

        If one of them is asked to stop, all will.

        Raises:
            OutOfMemoryElsewhere, LostRank: another rank failed.
        """
        failed, stopped, *sums = self._sums([0, bool(interruption.asked), *numbers])
        if failed:
            raise LostRank("another rank has failed") if failed >= _LOST else OutOfMemoryElsewhere
        if stopped:
            interruption.agree()
        return sums

    def within_memory(self, work: Callable[[], T]) -> T:
        """Return what `work` returns. If memory runs out in one rank, all ranks raise, so that all can try with less.

        Raises:
            OutOfMemoryElsewhere, and what `work` raises.
            LostRank: another rank has ended.
        """
        if self.world == 1:
            return work()
        try:
            result = work()
        except (RuntimeError, MemoryError) as error:
            if ran_out(error):
                self.any(True)
            raise
        if self.any(False):
            raise OutOfMemoryElsewhere
        return result

    def spread(self, model: nn.Module) -> None:
        """Copy the parameters and buffers of the first rank to all."""
        if self.world > 1:
            with connected():
                for tensor in (*model.parameters(), *model.buffers()):
                    distributed.broadcast(tensor.detach(), 0)

    def share_generator(self, device: torch.device) -> None:
        """Continue in every rank with the random numbers of the first, which may have drawn more or fewer."""
        on_gpu = device.type == "cuda"
        cpu, gpu = self.from_first(
            lambda: (torch.get_rng_state(), torch.cuda.get_rng_state(device) if on_gpu else None)
        )
        torch.set_rng_state(cpu)
        if gpu is not None:
            torch.cuda.set_rng_state(gpu, device)

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` returns in the first rank; the others wait for it."""
        if self.world == 1:
            return make()
        box: list[tuple[T] | None] = [(make(),) if self.is_first else None]
        with connected():
            distributed.broadcast_object_list(box, 0, group=self.host)
        assert box[0] is not None
        return box[0][0]

    def gathered(self, value: T) -> list[T]:
        """Return the values of all ranks, in the first rank; the others get an empty list."""
        if self.world == 1:
            return [value]
        values: list[T] = [value] * self.world
        with connected():
            distributed.gather_object(value, values if self.is_first else None, 0, group=self.host)
        return values if self.is_first else []

    @contextlib.contextmanager
    def first_then_others(self) -> Iterator[None]:
        """Within the context the first rank works alone; then the others do, and find for example a cache."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def most(self, number: int) -> int:
        """Return the largest of the ranks' numbers."""
        if self.world == 1:
            return number
        most = torch.tensor(number)
        with connected():
            distributed.all_reduce(most, distributed.ReduceOp.MAX, group=self.host)
        return int(most)

    def any(self, value: bool) -> bool:
        """Return True in every rank if the value is true in one of them."""
        return value if self.world == 1 else self._sums([value])[0] > 0

    def wait(self) -> None:
        """Wait until every rank has called this."""
        if self.world > 1:
            self._sums([0])

    def _sums(self, numbers: list[float]) -> list[float]:
        """Return the sum of each number over all ranks."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        with connected():
            distributed.all_reduce(sums, group=self.host)
        total: list[float] = sums.tolist()
        return total

    def add(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks."""
        with connected():
            for tensor in tensors:
                if tensor.is_sparse:
                    distributed.all_reduce(tensor)
            dense = [tensor for tensor in tensors if not tensor.is_sparse]
            rows = [_touched_rows(tensor) for tensor in dense]
            parts = [whole if at is None else whole.index_select(0, at) for whole, at in zip(dense, rows, strict=True)]
            for bucket in buckets(parts):
                flat = torch.cat([part.reshape(-1) for part in bucket])
                distributed.all_reduce(flat)
                for part, added in zip(bucket, torch.split(flat, [part.numel() for part in bucket]), strict=True):
                    part.copy_(added.view_as(part))
            for whole, at, part in zip(dense, rows, parts, strict=True):
                if at is not None:
                    whole.index_copy_(0, at, part)


ALONE = Ranks()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor with the parts of all ranks, all of which must call this; one that is not divided as it is."""
    gather = getattr(tensor, "full_tensor", None)  # a DTensor's: its module takes long to import
    if gather is None:
        return tensor
    with connected():
        full: Tensor = gather()
    return full


def _touched_rows(gradient: Tensor) -> Tensor | None:
    """Return the rows of a large table on the host that are not zero in some rank; None: exchange the whole tensor.

    An update has few of the words that a table has vectors for (docs/ranks.md has what this saves). On a GPU, finding
    the rows would wait for the device, and its links are fast.
    """
    if gradient.dim() != 2 or gradient.numel() < _TABLE or gradient.device.type != "cpu":
        return None
    # four times as fast as `any`
    touched = ((gradient.amax(dim=1) != 0) | (gradient.amin(dim=1) != 0)).to(torch.uint8)
    distributed.all_reduce(touched, distributed.ReduceOp.MAX)
    rows = touched.nonzero()[:, 0]
    return rows if 2 * len(rows) < len(gradient) else None


def _kind(gradient: Tensor | None) -> int:
    if gradient is None:
        return 0
    return _SPARSE if gradient.is_sparse else 1


def buckets(tensors: list[Tensor]) -> list[list[Tensor]]:
    """Return the tensors in their order, in groups of one type and of at most `_BUCKET_BYTES`, or of one tensor."""
    grouped: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        if not grouped or tensor.dtype != grouped[-1][0].dtype or size + tensor.nbytes > _BUCKET_BYTES:
            grouped.append([])
            size = 0
        grouped[-1].append(tensor)
        size += tensor.nbytes
    return grouped


@contextlib.contextmanager
def joined(wanted: int, device: str) -> Iterator[Ranks]:
    """Yield the ranks that this process belongs to, by the environment; without one, it is alone.

    Args:
        wanted: the option `ranks`, which must agree with the environment.
        device: the option `device`. Each rank of a machine has a GPU of its own.

    Raises:
        HydromelError: the environment is incomplete or says another number of ranks, or there are too few GPUs.
        LostRank: not every rank could be reached.
    """
    if not is_rank():
        yield ALONE
        return
    world = int(os.environ[WORLD])
    if world != wanted:
        raise HydromelError(f"{world} ranks were started, but ranks={wanted}; give ranks={world}")
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        local, available = int(os.environ.get(LOCAL_RANK, "0")), torch.cuda.device_count()
        if local >= available:
            raise HydromelError(f"ranks={wanted}: rank {local} of this machine has no GPU of its own: {available} here")
        if not distributed.is_nccl_available():
            raise HydromelError("ranks on GPUs need a build of torch with nccl; use device=cpu")
        torch.cuda.set_device(local)
    with connected():
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        host = distributed.new_group(backend="gloo", timeout=TIMEOUT) if cuda else None
        yield Ranks(int(os.environ[RANK]), world, host)
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Turn torch's errors about connections into `LostRank`."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if ran_out(error):
            raise
        raise lost(error) from error


def lost(error: Exception) -> LostRank:
    """Return the error for a connection that was lost, given torch's; from now on requests to stop are ignored."""
    interruption.ignore()  # torchrun is about to send one, since the other rank has ended
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return LostRank(f"the connection to another rank was lost ({reason:.120})")


def is_of_connection(error: Exception) -> bool:
    """Return True for an error of torch about the exchange between ranks, rather than about what is computed."""
    return isinstance(error, distributed.DistError) or "gloo" in str(error)
