"""`shard=full`: of every parameter, its gradient and its state in the optimiser, each rank keeps a part.

This is torch's FSDP2 (`fully_shard`; Zhao et al. 2023). Parameters are gathered for the forward and the backward pass,
those of a layer just before it runs, and freed after it. Gradients are added up over ranks, and each keeps its part of
the sum. So all ranks run equally many passes, and none can repeat one by itself.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.optim.optimizer import StateDict

from runner.common.errors import HydromelError, ran_out
from runner.distributed.ranks import Ranks, connected, is_of_connection, lost

M = TypeVar("M", bound=nn.Module)


class Shards(Generic[M]):
    """A model in training, whose parameters are divided between the ranks by their first dimension.

    Args:
        model: a model with the same parameters in all ranks. From now on this rank has its part of them, as DTensors.
        layers: modules within it that each forward pass calls once, whatever its rows: gathered one at a time. The
            other parameters are gathered together, for the whole of both passes.

    Attributes:
        own: this rank's part of each parameter that is trained: the same memory as a plain tensor, for the optimiser.
        whole: a copy of the model as an ordinary module, to evaluate and to save. Buffers are shared with it. Its
            parameters have memory from `gather` until `free`.

    Raises:
        HydromelError: the model has parameters that cannot be divided.
    """

    def __init__(self, model: M, layers: Sequence[nn.Module], ranks: Ranks) -> None:
        _check(model)
        # Outputs that are views are safe, since nothing changes them in place; gathered weights are never in one piece.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module|RNN module weights")
        self.model, self.ranks = model, ranks
        self.whole = _without_memory(model)
        self._had_gradient: set[str] = set()  # names of parameters, since the update began
        mesh = init_device_mesh(next(model.parameters()).device.type, (ranks.world,))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        for name, module in model.named_modules():
            if isinstance(module, FSDPModule):
                # losses are sums, divided once by the targets of all ranks
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
                module.set_reduce_scatter_unused_params(True, recurse=False)
                self._watch(name, module)
        self.own = {
            parameter: nn.Parameter(_divided(parameter.detach()).to_local())
            for parameter in model.parameters()
            if parameter.requires_grad
        }

    def _watch(self, prefix: str, module: FSDPModule) -> None:
        """Note from now on which parameters of a module, without those of layers within it, get a gradient.

        FSDP2 adds up zeros for the others, which an optimiser with weight decay would not leave as they are.
        """
        assert isinstance(module, nn.Module)
        module.unshard()
        for name, parameter in module.named_parameters(prefix):
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                note = partial(self._note, name)
                parameter.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
        module.reshard()

    def _note(self, name: str, parameter: Tensor) -> None:
        self._had_gradient.add(name)

    def mean_gradients(self, compute: Callable[[], tuple[Tensor, int]]) -> tuple[Tensor, int]:
        """Return the mean loss, (), of an update and its targets, and leave its gradients in this rank's parts (`own`).

        `compute` runs as many forward and backward passes in every rank. It returns the sum of the loss over this
        rank's targets, (), and their number.

        Raises:
            HydromelError: this rank ran out of memory.
            LostRank: another rank has ended.
        """
        self._had_gradient.clear()
        try:
            loss, count = compute()
        except (RuntimeError, MemoryError) as error:
            if ran_out(error):
                raise HydromelError(
                    f"out of memory in rank {self.ranks.rank}; with shard=full an update cannot be repeated in smaller "
                    "pieces, since the other ranks wait for this one: lower batching.batch_size, or use more ranks"
                ) from error
            if is_of_connection(error):
                raise lost(error) from error
            raise
        names = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        targets, *anywhere = self.ranks.agree_on_update([count, *(name in self._had_gradient for name in names)])
        for (parameter, own), ranks in zip(self.own.items(), anywhere, strict=True):
            if ranks:
                own.grad = _divided(parameter.grad).to_local().mul_(1 / max(1.0, targets))
            parameter.grad = None
        loss = loss.double()  # the same type in a rank without rows
        self.ranks.add([loss])
        return loss / max(1.0, targets), int(targets)

    def gather(self) -> M:
        """Return `whole` with the parameters of all ranks, all of which must call this.

        Raises:
            LostRank: another rank has ended.
        """
        with connected(), torch.no_grad():
            for parameter, whole in zip(self.model.parameters(), self.whole.parameters(), strict=True):
                whole.data = _divided(parameter).full_tensor()
        return self.whole

    def free(self) -> None:
        """Free the memory of `whole`."""
        for whole in self.whole.parameters():
            whole.data = whole.new_empty(0)

    def norm(self, own: Tensor) -> Tensor:
        """Return the norm of all ranks' gradients, (), given that of this rank's."""
        squared = own.double().square()
        self.ranks.add([squared])
        return squared.sqrt().to(own.dtype)

    def whole_state(self, optimizer: Optimizer) -> StateDict:
        """Return the state of an optimiser of `own` as one process would have it; only the first rank keeps tensors."""

        def gather(value: object, parameter: DTensor, own: Tensor) -> object:
            if not isinstance(value, Tensor) or value.shape != own.shape:
                return value
            full = _like(parameter, value).full_tensor()
            return full.cpu() if self.ranks.is_first else None

        with connected():
            return self._mapped(optimizer.state_dict(), optimizer, gather)

    def own_state(self, state: StateDict, optimizer: Optimizer) -> StateDict:
        """Return this rank's part of the `state` that one process would have, for an optimiser of `own`."""

        def divide(value: object, parameter: DTensor, own: Tensor) -> object:
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                return value
            mesh, placements = parameter.device_mesh, parameter.placements
            return distribute_tensor(value, mesh, placements, src_data_rank=None).to_local()

        return self._mapped(state, optimizer, divide)

    def _mapped(
        self, state: StateDict, optimizer: Optimizer, change: Callable[[object, DTensor, Tensor], object]
    ) -> StateDict:
        """Return a state with the changed values of each parameter, given it and this rank's part of it."""
        whole = {own: _divided(parameter) for parameter, own in self.own.items()}
        owns = [own for group in optimizer.param_groups for own in group["params"]]
        changed = {
            place: {name: change(value, whole[owns[place]], owns[place]) for name, value in values.items()}
            for place, values in state["state"].items()
        }
        return {**state, "state": changed}


def _divided(tensor: Tensor | None) -> DTensor:
    """Return the tensor as what it is: one of which each rank has a part."""
    assert isinstance(tensor, DTensor)
    return tensor


def _like(parameter: DTensor, own: Tensor) -> DTensor:
    """Return the tensor that is divided as a parameter is, given this rank's part."""
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(own, mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride())


def _without_memory(model: M) -> M:
    """Return a copy of a model whose parameters have no memory yet, and whose buffers are the model's."""
    memo: dict[int, object] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.new_empty(0), parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _check(model: nn.Module) -> None:
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise HydromelError(f"shard=full needs torch 2.13 or later; this is {torch.__version__}")
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.sparse:
            raise HydromelError(
                f"shard=full: the gradient of {name} is sparse, which cannot be divided between ranks; use "
                "embedding.sparse=false, or shard=none"
            )
    for name, parameter in model.named_parameters():
        if parameter.dim() == 0:
            raise HydromelError(f"shard=full: {name} is a single number without a dimension; give it the shape (1,)")
