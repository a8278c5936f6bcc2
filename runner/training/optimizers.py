"""Optimisers: torch's own and SGD with averaged iterates, with the options that configs/optimizer/ shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, overload

import torch
from pydantic import Field
from torch import Tensor, nn, optim
from torch.optim.optimizer import ParamsT, StateDict
from torch.optim.swa_utils import get_swa_multi_avg_fn

from runner.common.types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat
from runner.compat.torch import WithoutCompiler, without_compiler
from runner.interfaces import HasAverage, HasLearningRates
from runner.training.touched_rows import by_touched_rows, coalesce_gradients, values_of

ELEMENTWISE = (optim.SGD, optim.Adam, optim.AdamW, optim.Adadelta, optim.RMSprop)  # a number's update needs no others


class Sgd(WithoutCompiler, optim.SGD):
    step = by_touched_rows(without_compiler(optim.SGD.step))


class Adam(WithoutCompiler, optim.Adam):
    step = by_touched_rows(without_compiler(optim.Adam.step))


class AdamW(WithoutCompiler, optim.AdamW):
    step = by_touched_rows(without_compiler(optim.AdamW.step))


class Adadelta(WithoutCompiler, optim.Adadelta):
    step = by_touched_rows(without_compiler(optim.Adadelta.step))


class RMSprop(WithoutCompiler, optim.RMSprop):
    step = by_touched_rows(without_compiler(optim.RMSprop.step))


class AveragedSgd(Sgd):
    """Plain SGD that also keeps the mean of all iterates from some update on (Polyak and Juditsky 1992).

    Training continues from the last iterate. The mean is evaluated and kept as the best checkpoint (`averaged`).

    Args:
        start: number of updates after which averaging starts; None: an evaluation triggers it.
        patience: n: averaging starts at the first evaluation that is worse than the best of all earlier ones except the
            last n (NT-ASGD; Merity et al. 2017, algorithm 1).
    """

    def __init__(
        self, params: ParamsT, lr: float, *, weight_decay: float, fused: bool, start: int | None, patience: int
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, fused=fused)
        self.start, self.patience = start, patience
        self.updates = 0
        self.history: list[float] = []  # quality at every evaluation, larger is better

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make an SGD step; then, if averaging has started, add the new iterate to the mean."""
        loss: float | None = super().step(closure)
        self.updates += 1
        if self.start is not None and self.updates > self.start:
            self._average(self.updates - self.start - 1)
        return loss

    @torch.no_grad()
    def _average(self, n_averaged: int) -> None:
        """Add the last iterate to the mean of `n_averaged` earlier ones."""
        parameters: list[Tensor] = [parameter for group in self.param_groups for parameter in group["params"]]
        for parameter in parameters:
            if "mean" not in self.state[parameter]:
                self.state[parameter]["mean"] = torch.zeros_like(parameter)
        update_means = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        update_means([self.state[parameter]["mean"] for parameter in parameters], parameters, n_averaged)

    def observe(self, quality: float) -> None:
        """Take the validation quality (larger is better) after each evaluation, and start averaging if it got worse."""
        # NT-ASGD compares with evaluations before the last n, so that one lucky evaluation does not end plain SGD.
        earlier = self.history[: max(0, len(self.history) - self.patience)]
        if self.start is None and earlier and quality < max(earlier):
            self.start = self.updates
        self.history.append(quality)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the context, set the parameters to their means, if averaging has started."""
        means = {parameter: state["mean"] for parameter, state in self.state.items() if "mean" in state}
        last = {parameter: parameter.detach().clone() for parameter in means}
        _fill(means)
        try:
            yield
        finally:
            _fill(last)

    def state_dict(self) -> StateDict:
        averaging = {"start": self.start, "updates": self.updates, "history": [*self.history]}
        return {**super().state_dict(), "averaging": averaging}

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Load a state; the configured update at which averaging starts has precedence."""
        super().load_state_dict(state_dict)
        averaging = state_dict["averaging"]
        self.updates, self.history = averaging["updates"], [*averaging["history"]]
        self.start = averaging["start"] if self.start is None else self.start


@torch.no_grad()
def _fill(values: dict[Tensor, Tensor]) -> None:
    for parameter, value in values.items():
        parameter.copy_(value)


Betas = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


def parameters_by_rate(
    model: nn.Module, decay_vectors: bool = True, own: Mapping[nn.Parameter, nn.Parameter] | None = None
) -> list[dict[str, object]]:
    """Return groups of `params` with a common `learning_rate_factor`, those at the optimiser's own rate (1.0) first.

    Frozen parameters are in no group. Without `decay_vectors`, parameters of one dimension (biases, and the scales of
    normalisations) are in separate groups with a `weight_decay` of 0. `own` has the part that this rank
    keeps of each parameter, if they are divided.
    """
    factors = {
        module.get_parameter(name): factor
        for module in model.modules()
        if isinstance(module, HasLearningRates)
        for name, factor in module.learning_rate_factors.items()
    }
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decays = decay_vectors or parameter.dim() > 1
            groups.setdefault((factors.get(parameter, 1.0), decays), []).append(
                parameter if own is None else own[parameter]
            )
    return [
        {"params": parameters, "learning_rate_factor": factor} | ({} if decays else {"weight_decay": 0.0})
        for (factor, decays), parameters in groups.items()
    ]


def averaged(optimizer: optim.Optimizer) -> AbstractContextManager[None]:
    """Return a context in which the parameters are those to evaluate: their mean, if the optimiser keeps one."""
    return optimizer.averaged() if isinstance(optimizer, HasAverage) else nullcontext()


def clip_gradients(
    optimizer: optim.Optimizer, most: float | None, of_all_ranks: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the norm of all gradients, (), after scaling them down to a norm of at most `most`; None: no limit.

    If each rank has a part of the gradients, `of_all_ranks` returns the norm of all, given that of this rank's.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    coalesce_gradients(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([values_of(gradient) for gradient in gradients])
    norm = norm if of_all_ranks is None else of_all_ranks(norm)
    if most is not None:
        dense = [part for part in parameters if part.grad is not None and not part.grad.is_sparse]
        nn.utils.clip_grads_with_norm_(dense, most, norm)
        for gradient in gradients:
            if gradient.is_sparse:  # as the dense ones
                values_of(gradient).mul_((most / (norm + 1e-6)).clamp(max=1.0))
    return norm


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
    return Sgd(params, lr, momentum, nesterov=nesterov, weight_decay=weight_decay, fused=fused)


def adam(
    *, params: ParamsT, lr: PositiveFloat, betas: Betas, eps: PositiveFloat, weight_decay: NonNegativeFloat, fused: bool
) -> optim.Optimizer:
    """Adam (Kingma and Ba 2015); weight decay as an L2 term in the gradient."""
    return Adam(params, lr, (betas[0], betas[1]), eps, weight_decay, fused=fused)


def adamw(
    *, params: ParamsT, lr: PositiveFloat, betas: Betas, eps: PositiveFloat, weight_decay: NonNegativeFloat, fused: bool
) -> optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return AdamW(params, lr, (betas[0], betas[1]), eps, weight_decay, fused=fused)


def adadelta(
    *, params: ParamsT, lr: PositiveFloat, rho: Fraction, eps: PositiveFloat, weight_decay: NonNegativeFloat
) -> optim.Optimizer:
    """Adadelta (Zeiler 2012)."""
    return Adadelta(params, lr, rho, eps, weight_decay)


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
    return RMSprop(params, lr, alpha, eps, weight_decay, momentum)


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
