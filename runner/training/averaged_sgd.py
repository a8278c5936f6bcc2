"""Stochastic gradient descent whose iterates are averaged, and evaluated by their average."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, optim
from torch.optim.swa_utils import get_swa_multi_avg_fn


class AveragedSgd(optim.SGD):
    """Plain SGD; from some update on, the mean of all iterates is kept too (Polyak and Juditsky 1992).

    Training goes on from the last iterate. What is evaluated, and kept as the best, is the mean (`averaged`).

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        weight_decay: L2 term added to the gradient.
        fused: one kernel for all parameters.
        start: updates after which the iterates count; None: when validation triggers it.
        patience: n: averaging is triggered by the first evaluation that is worse than the best of all before it but the
            last n (NT-ASGD; Merity et al. 2017, algorithm 1).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        weight_decay: float,
        fused: bool,
        start: int | None,
        patience: int,
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, fused=fused)
        self.start, self.patience = start, patience
        self.updates = 0
        self.history: list[float] = []  # quality at every evaluation, larger is better

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = super().step(closure)
        self.updates += 1
        if self.start is not None and self.updates > self.start:
            self._average(self.updates - self.start - 1)
        return loss

    @torch.no_grad()
    def _average(self, n_averaged: int) -> None:
        """Add the last iterate to the mean of `n_averaged` earlier ones."""
        parameters = [one for group in self.param_groups for one in group["params"]]
        for one in parameters:
            if "mean" not in self.state[one]:
                self.state[one]["mean"] = torch.zeros_like(one)
        update_means = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        update_means([self.state[one]["mean"] for one in parameters], parameters, n_averaged)

    def observe(self, quality: float) -> None:
        """Told the validation quality (larger is better) after each evaluation."""
        earlier = self.history[: max(0, len(self.history) - self.patience)]
        if self.start is None and earlier and quality < max(earlier):
            self.start = self.updates
        self.history.append(quality)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Meanwhile the parameters are their means, where there are any."""
        means = {parameter: state["mean"] for parameter, state in self.state.items() if "mean" in state}
        last = {parameter: parameter.detach().clone() for parameter in means}
        _fill(means)
        try:
            yield
        finally:
            _fill(last)

    def state_dict(self) -> dict[str, Any]:
        averaging = {"start": self.start, "updates": self.updates, "history": [*self.history]}
        return {**super().state_dict(), "averaging": averaging}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A start that the config names is the config's."""
        super().load_state_dict(state_dict)
        averaging = state_dict["averaging"]
        self.updates, self.history = averaging["updates"], [*averaging["history"]]
        self.start = averaging["start"] if self.start is None else self.start


@contextmanager
def averaged(optimizer: optim.Optimizer) -> Iterator[None]:
    """Meanwhile the model is what is to be evaluated: the mean of its iterates, where the optimiser keeps one."""
    if not isinstance(optimizer, AveragedSgd):
        yield
        return
    with optimizer.averaged():
        yield


def observe(optimizer: optim.Optimizer, quality: float) -> None:
    """Tell the validation quality (larger is better) to an optimiser that wants to know."""
    if isinstance(optimizer, AveragedSgd):
        optimizer.observe(quality)


@torch.no_grad()
def _fill(values: dict[Tensor, Tensor]) -> None:
    for parameter, value in values.items():
        parameter.copy_(value)
