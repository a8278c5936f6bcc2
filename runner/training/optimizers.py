"""Optimisers: torch's own and `runner.training.averaged_sgd`, with the options that configs/optimizer/ shows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

from pydantic import Field
from torch import nn, optim
from torch.optim.optimizer import ParamsT

from runner.common.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat
from runner.interfaces import HasAverage, HasLearningRates
from runner.training.averaged_sgd import AveragedSgd

Betas = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


def parameters_by_rate(model: nn.Module) -> list[dict[str, object]]:
    """Return groups of `params` with a common `learning_rate_factor`, those at the optimiser's own rate (1.0) first."""
    factors = {
        module.get_parameter(name): factor
        for module in model.modules()
        if isinstance(module, HasLearningRates)
        for name, factor in module.learning_rate_factors.items()
    }
    groups: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in model.parameters():
        groups.setdefault(factors.get(parameter, 1.0), []).append(parameter)
    return [{"params": parameters, "learning_rate_factor": factor} for factor, parameters in groups.items()]


def averaged(optimizer: optim.Optimizer) -> AbstractContextManager[None]:
    """Return a context in which the parameters are those to evaluate: their mean, if the optimiser keeps one."""
    return optimizer.averaged() if isinstance(optimizer, HasAverage) else nullcontext()


def observe(optimizer: optim.Optimizer, quality: float) -> None:
    """Pass the validation quality (larger is better) to an optimiser that uses it."""
    if isinstance(optimizer, HasAverage):
        optimizer.observe(quality)


def sgd(
    *,
    params: ParamsT,
    lr: PositiveFloat,
    momentum: Fraction,
    nesterov: bool,
    weight_decay: NonNegativeFloat,
    fused: bool,
) -> optim.Optimizer:
    """Stochastic gradient descent, with momentum as in Sutskever et al. 2013."""
    return optim.SGD(params, lr, momentum, nesterov=nesterov, weight_decay=weight_decay, fused=fused)


def adam(
    *, params: ParamsT, lr: PositiveFloat, betas: Betas, eps: PositiveFloat, weight_decay: NonNegativeFloat, fused: bool
) -> optim.Optimizer:
    """Adam (Kingma and Ba 2015); weight decay as an L2 term in the gradient."""
    return optim.Adam(params, lr, (betas[0], betas[1]), eps, weight_decay, fused=fused)


def adamw(
    *, params: ParamsT, lr: PositiveFloat, betas: Betas, eps: PositiveFloat, weight_decay: NonNegativeFloat, fused: bool
) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return optim.AdamW(params, lr, (betas[0], betas[1]), eps, weight_decay, fused=fused)


def adadelta(
    *, params: ParamsT, lr: PositiveFloat, rho: Fraction, eps: PositiveFloat, weight_decay: NonNegativeFloat
) -> optim.Optimizer:
    """Adadelta (Zeiler 2012)."""
    return optim.Adadelta(params, lr, rho, eps, weight_decay)


def rmsprop(
    *,
    params: ParamsT,
    lr: PositiveFloat,
    alpha: Fraction,
    eps: PositiveFloat,
    momentum: Fraction,
    weight_decay: NonNegativeFloat,
) -> optim.Optimizer:
    """RMSprop (Tieleman and Hinton 2012)."""
    return optim.RMSprop(params, lr, alpha, eps, weight_decay, momentum)


def asgd(
    *, params: ParamsT, lr: PositiveFloat, t0: NonNegativeInt, weight_decay: NonNegativeFloat, fused: bool
) -> optim.Optimizer:
    """Averaged SGD (Polyak and Juditsky 1992); the mean of all iterates after update `t0` is evaluated and kept."""
    return AveragedSgd(params, lr, weight_decay=weight_decay, fused=fused, start=t0, patience=0)


def nt_asgd(
    *, params: ParamsT, lr: PositiveFloat, patience: NonNegativeInt, weight_decay: NonNegativeFloat, fused: bool
) -> optim.Optimizer:
    """NT-ASGD (Merity et al. 2017): averaging starts when the quality on valid stops improving (see `AveragedSgd`)."""
    return AveragedSgd(params, lr, weight_decay=weight_decay, fused=fused, start=None, patience=patience)
