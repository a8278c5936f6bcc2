"""The device and the optimiser."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from runner.common.errors import HydromelError
from runner.config.instantiate import Factory
from runner.config.schema import Device, Dtype, Precision
from runner.distributed.ranks import Ranks
from runner.interfaces import BatchingStrategy, HasStatistics
from runner.layers.dropout import WeightDrop
from runner.model import Model, unseeded_dropout
from runner.training.optimizers import ELEMENTWISE, parameters_by_rate


def build_optimizer(
    factory: Factory[torch.optim.Optimizer],
    model: nn.Module,
    decay_vectors: bool = True,
    own: Mapping[nn.Parameter, nn.Parameter] | None = None,
) -> torch.optim.Optimizer:
    """Build an optimiser with a group for each learning rate; the schedule multiplies a group's `initial_lr`.

    Without `decay_vectors`, biases and normalisations have no weight decay; `own` has this rank's parts of parameters
    that are divided (`parameters_by_rate`).

    Raises:
        HydromelError: the optimiser may need whole parameters, but they are divided.
    """
    optimizer = factory(params=parameters_by_rate(model, decay_vectors, own))
    if own is not None and not isinstance(optimizer, ELEMENTWISE):
        raise HydromelError(
            f"shard=full: {type(optimizer).__name__} may need whole parameters for an update, but each rank has a "
            f"part; use one of {', '.join(kind.__name__ for kind in ELEMENTWISE)}, or shard=none"
        )
    for group in optimizer.param_groups:
        group["lr"] *= group["learning_rate_factor"]
        group["initial_lr"] = group["lr"]
    return optimizer


def check_row_dropout(model: Model) -> None:
    """Raise HydromelError if dropout in a part of the model cannot follow from the seeds of rows."""
    if unseeded := unseeded_dropout(model):
        raise HydromelError(
            f"train.row_dropout=true: {unseeded[0]} draws its dropout for all rows of a batch at once; turn it off "
            "(encoder.weight_drop=0; embedding.inner_dropout=0 for a pretrained model that always runs padded) or use "
            "train.row_dropout=false"
        )


def check_ranks(ranks: Ranks, model: Model, strategy: BatchingStrategy, n_rows: int) -> None:
    """Raise HydromelError if several ranks cannot train this model with this strategy, or have too few rows."""
    if ranks.world == 1:
        return
    most = strategy.batch_size or n_rows
    if most < ranks.world:
        what = "streams" if strategy.carries_state else "rows of an update"
        raise HydromelError(f"ranks={ranks.world}: there are only {most} {what} (batching.batch_size); use fewer ranks")
    # all ranks draw the same mask of weights for an update, but the masks of rows would depend on their rank
    modules = dict(model.named_modules())
    for name in unseeded_dropout(model):
        if not isinstance(modules[name], WeightDrop):
            raise HydromelError(
                f"ranks={ranks.world}: {name} draws its dropout for all rows of a batch at once, of which each rank "
                "has only a share; turn it off (embedding.inner_dropout=0 for a pretrained model that always runs "
                "padded), or use ranks=1"
            )
        if strategy.micro_batch is not None:
            raise HydromelError(
                f"ranks={ranks.world}: {name} draws a mask for each micro-batch, of which ranks have different "
                f"numbers; batching={strategy.name} needs encoder.weight_drop=0, or ranks=1"
            )
    changing = [name for name, module in model.named_modules() if isinstance(module, HasStatistics)]
    if changing:
        raise HydromelError(
            f"ranks={ranks.world}: {changing[0]} computes statistics of a batch, of which each rank sees only its "
            "share; use another normalisation, or ranks=1"
        )


def choose_device(wanted: Device, precision: Precision, dtype: Dtype) -> torch.device:
    """Return the device that an option names.

    Raises:
        HydromelError: cuda is not available, or the arithmetic does not fit the dtype.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise HydromelError("device=cuda, but torch sees no GPU; use device=auto or device=cpu")
    if precision == "bf16" and dtype == "float64":
        raise HydromelError("precision=bf16 needs dtype=float32, got dtype=float64")
    cuda = torch.cuda.is_available() if wanted == "auto" else wanted == "cuda"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
