"""Evaluation: the figures of a model on a split, by one process or by several ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor

from runner.components.measures import Measures
from runner.interfaces import START, ChoosesOnValid, Head, InputKind
from runner.model import Model, device_of
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.terminal.interruption import interruption
from runner.training.bookkeeping import check_scores
from runner.training.state import Training

_Sent = dict[InputKind, tuple[Tensor, bool]]


def choose_on_valid(model: Model, valid: Callable[[], Iterable[Batch]], bf16: bool) -> None:
    """Let parts of the head make their choices on the validation set; `valid` makes its batches, if they are needed.

    Raises:
        HydromelError: scores are NaN.
        KeyboardInterrupt: the run was asked to stop.
    """
    parts = [module for module in model.modules() if isinstance(module, ChoosesOnValid)]
    choosers = [chooser for part in parts if (chooser := part.chooser()) is not None]
    if not choosers:
        return
    model.eval()
    has_nan = []
    with torch.inference_mode(), torch.autocast(device_of(model).type, torch.bfloat16, enabled=bf16):
        for batch in valid():
            interruption.check()
            scores, _ = model(batch, None)
            has_nan.append(scores.isnan().any())
            for chooser in choosers:
                chooser.update(scores, batch)
        check_scores(has_nan)
        for chooser in choosers:
            chooser.choose()


def evaluate(model: Model, measures: Measures, batches: Iterable[Batch], bf16: bool) -> dict[str, object]:
    """Return the started `measures` over all batches; a state is carried over where batches continue one another.

    Raises:
        HydromelError: scores are NaN.
        KeyboardInterrupt: the run was asked to stop.
    """
    has_nan: list[Tensor] = []
    for batch, values in _predicted(model, measures, batches, bf16, has_nan):
        measures.update(values, batch)
    check_scores(has_nan)
    return measures.compute()


def evaluate_together(t: Training) -> dict[str, object]:
    """Return what `evaluate` returns for the validation set, of which each rank computes some of the batches.

    The first rank measures the predictions of all. The batches of a stream continue one another, so that every rank
    computes all of them.

    Raises:
        HydromelError: scores are NaN.
        LostRank: another rank has ended.
        MemoryError, RuntimeError: memory ran out in a rank; all raise (`Ranks.within_memory`).
    """
    measures, has_nan = t.measures.start(t.vocabs), list[Tensor]()
    world = 1 if t.batching.carries_state else t.ranks.world
    own = islice(t.valid_batches(), t.ranks.rank % world, None, world)

    def predicted() -> list[_Sent]:
        return [_to_host(values) for _, values in _predicted(t.model, measures, own, t.bf16, has_nan)]

    sent = t.ranks.within_memory(predicted)
    has_own_nan = bool(has_nan) and bool(torch.stack(has_nan).any())
    check_scores([torch.tensor(t.ranks.any(has_own_nan))])  # all ranks raise together
    gathered = t.ranks.gathered(sent)

    def compute() -> dict[str, object]:
        for number, batch in enumerate(t.valid_batches()):
            measures.update(_from_host(gathered[number % world][number // world], batch), batch)
        return measures.compute()

    return t.ranks.from_first(compute)


def _predicted(
    model: Model, measures: Measures, batches: Iterable[Batch], bf16: bool, has_nan: list[Tensor]
) -> Iterator[tuple[Batch, dict[InputKind, Tensor | Ragged]]]:
    """Yield each batch with the input of its metrics, and add to `has_nan` whether its scores are NaN.

    What is added is a tensor, (), on the device.
    """
    model.eval()
    state = START
    for batch in batches:
        interruption.check()
        # entered for each batch, since the caller's code runs between two of them
        with torch.inference_mode(), torch.autocast(device_of(model).type, torch.bfloat16, enabled=bf16):
            scores, state = model(batch, state if batch.carries_state else None)
            has_nan.append(scores.isnan().any())
            values = {kind: metric_input(model.head, kind, scores, batch) for kind in measures.input_kinds}
        yield batch, values


def metric_input(head: Head, kind: InputKind, scores: Tensor, batch: Batch) -> Tensor | Ragged:
    """Return the input of metrics of this kind: values of the rows, (B,) or (B, C), or a packed `Ragged` of tokens."""
    if kind == "losses":
        return head.losses(scores, batch)
    ids = head.predict(scores, batch)
    return Ragged(ids, batch.target.rows, "packed") if isinstance(batch.target, Ragged) else ids


def _to_host(values: Mapping[InputKind, Tensor | Ragged]) -> _Sent:
    """Return the values in a form that another rank can take, and for each whether it is a `Ragged`."""
    return {
        kind: (value.tokens().cpu(), True) if isinstance(value, Ragged) else (value.cpu(), False)
        for kind, value in values.items()
    }


def _from_host(sent: _Sent, batch: Batch) -> dict[InputKind, Tensor | Ragged]:
    """Return the values that another rank has computed for this batch."""
    values: dict[InputKind, Tensor | Ragged] = {}
    for kind, (tensor, is_ragged) in sent.items():
        values[kind] = tensor.to(batch.rows.device)
        if is_ragged:
            assert isinstance(batch.target, Ragged)
            values[kind] = Ragged(tensor.to(batch.rows.device), batch.target.rows, "packed")
    return values
