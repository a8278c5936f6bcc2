"""The predictions of a finished run: computed once after training by the best checkpoint, analysed and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.components.measures import scored
from runner.data.numericalize import TARGET, Data
from runner.data.split_rows import split_rows
from runner.inference.example import write_example
from runner.inference.outcomes import write_outcomes
from runner.interfaces import START, BatchingStrategy, Corpus, HasInspector, HasLossTables, InputKind, Predictions
from runner.model import Model, device_of, with_pieces
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_rows
from runner.ragged.scored import scored_predictions
from runner.terminal.progress import track
from runner.training.bookkeeping import check_scores
from runner.training.evaluation import metric_input
from runner.training.state import Training

log = logging.getLogger(__name__)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class SplitResults:
    """The results of running the model over a whole split, once: the input of its metrics, and what is written."""

    # The input of metrics by its kind, on the host, in the split's own order: for each row, or packed for each token
    values: Mapping[InputKind, Tensor | Ragged]
    predictions: Predictions | None  # None for a task whose own metric takes losses: a language model


def predict(model: Model, batches: Iterable[Batch], bf16: bool, all_classes: bool = False) -> Predictions:
    """Predict all rows of a split, from batches in any order; the result is in the split's own order.

    With `all_classes` the result has the probability of every class, (N, C), instead of that of the predicted one.

    Raises:
        HydromelError: scores are NaN.
    """
    return _predict(model, batches, bf16, all_classes, with_losses=False)[0]


def _predict(
    model: Model, batches: Iterable[Batch], bf16: bool, all_classes: bool, with_losses: bool
) -> tuple[Predictions, Tensor | Ragged | None]:
    """Return predictions as `predict`, and if asked the losses (`Head.losses`) in float64, in the split's own order."""
    values, probability, index, lengths, has_nan = [], list[Tensor](), [], [], []
    losses: list[Tensor | Ragged] = []
    model.eval()
    with torch.inference_mode(), torch.autocast(device_of(model).type, torch.bfloat16, enabled=bf16):
        for batch in batches:
            scores, _ = model(batch, None)
            has_nan.append(scores.isnan().any())
            predicted = model.head.predict(scores, batch)
            values.append(predicted)
            if (of_classes := model.head.probabilities(scores, batch)) is not None:
                if predicted.ndim == 1 and not all_classes:
                    of_classes = of_classes.gather(1, predicted[:, None])[:, 0]
                probability.append(of_classes.float())
            if with_losses:
                losses.append(metric_input(model.head, "losses", scores, batch))
            index.append(batch.index)
            lengths.append(batch.targets_per_row)
    check_scores(has_nan)
    rows = Rows(np.concatenate(lengths), CPU)
    order_of_rows = np.argsort(np.concatenate(index))
    # Rows have several predictions, so they are put into the split's order token by token.
    in_split, order = select_rows(rows, order_of_rows)

    def in_order(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).cpu().index_select(0, order)

    predictions = Predictions(in_order(values).numpy(), in_order(probability).numpy() if probability else None)
    if per_token := [part.tokens() for part in losses if isinstance(part, Ragged)]:
        return predictions, Ragged(in_order(per_token).double(), in_split, "packed")
    per_row = [part for part in losses if isinstance(part, Tensor)]
    return predictions, torch.cat(per_row).cpu().double()[torch.from_numpy(order_of_rows)] if per_row else None


def split_values(
    model: Model, batching: BatchingStrategy, split: Batch, batch_size: int, bf16: bool, kinds: Iterable[InputKind]
) -> dict[InputKind, Tensor | Ragged]:
    """Return the input of metrics by its kind, on the host, in the split's own order.

    It is computed on the strategy's evaluation batches: predictions as `Head.predict`, losses float64; (B,) for each
    row, or a packed `Ragged` for each token.

    Raises:
        HydromelError: scores are NaN.
    """
    split, head, state, has_nan = with_pieces(model, split.to(device_of(model))), model.head, START, list[Tensor]()
    # A strategy may reorder and cut rows. The same batches are made a second time with token positions as targets:
    # they say which token of the split each value belongs to.
    numbered = split
    if isinstance(split.target, Ragged):
        numbers = torch.arange(split.target.rows.n_tokens, device=split.rows.device)
        numbered = replace(split, target=split.target.with_values(numbers))
    # values, and the positions of their tokens or rows
    parts: dict[InputKind, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in kinds}
    per_token = set[InputKind]()
    model.eval()
    with torch.inference_mode(), torch.autocast(split.rows.device.type, torch.bfloat16, enabled=bf16):
        made, numbered_batches = (batching.evaluation_batches(source, batch_size) for source in (split, numbered))
        batches = track(made, "evaluating", split.real_tokens, lambda batch: batch.real_tokens)
        for batch, numbered_batch in zip(batches, numbered_batches, strict=True):
            scores, state = model(batch, state if batch.carries_state else None)
            has_nan.append(scores.isnan().any())
            for kind in parts:
                values = metric_input(head, kind, scores, batch)
                if isinstance(values, Ragged):
                    assert isinstance(numbered_batch.target, Ragged)
                    per_token.add(kind)
                    parts[kind].append((values.tokens(), numbered_batch.target.tokens()))
                else:
                    parts[kind].append((values, torch.from_numpy(batch.index)))
    check_scores(has_nan)
    by_kind: dict[InputKind, Tensor | Ragged] = {}
    for kind, pairs in parts.items():
        column, places = (torch.cat(column).cpu() for column in zip(*pairs, strict=True))
        ordered = (column.double() if kind == "losses" else column).index_select(0, places.argsort())
        by_kind[kind] = Ragged(ordered, Rows(split.targets_per_row, CPU), "packed") if kind in per_token else ordered
    return by_kind


def run_split(t: Training, split: Batch) -> SplitResults:
    """Run the current model over a split; metrics, tables and files are all computed from the result."""
    t.clock.start()
    kinds, batch_size = set(t.measures.input_kinds), t.eval_batch_size
    values: dict[InputKind, Tensor | Ragged] = {}
    predictions, own = None, t.task.metric.input_kind
    if own != "losses":
        batches = t.batching.evaluation_batches(with_pieces(t.model, split.to(t.clock.device)), batch_size)
        shown = track(batches, "predicting", split.real_tokens, lambda batch: batch.real_tokens)
        predictions, losses = _predict(t.model, shown, t.bf16, all_classes=False, with_losses=True)
        values[own] = torch.from_numpy(predictions.values)
        assert losses is not None
        values["losses"] = losses
    if others := kinds - values.keys():
        values |= split_values(t.model, t.batching, split, batch_size, t.bf16, others)
    t.clock.lap("evaluation")
    t.clock.synchronize()
    return SplitResults(values, predictions)


def inspect(t: Training, data: Data, name: str, results: SplitResults, corpus: Corpus | None) -> dict[str, object]:
    """Return tables of detail of split `name`, and write its outcomes and predictions to the run's folder.

    A file that cannot be written causes a warning, not an error, so that the run keeps its other results. Without
    `corpus`, the run's data set, there are no tables and no predictions.
    """
    t.clock.start()
    try:
        metric = t.measures.metric_of(t.measures.main, data.vocabs)
        values = results.values[metric.input_kind]
        counted, split = scored(values, data.splits[name], metric.input_kind, data.vocabs[TARGET].known)
        write_outcomes(metric, t.measures.main, counted.numpy(), name, split, Path(t.run.path))
    except HydromelError as error:
        log.warning("the outcomes of %s were not written: %s", name, error)
    try:
        write_example(t, data)
    except HydromelError as error:
        log.warning("the example of the run's input was not written: %s", error)
    tables = {} if corpus is None else _tables(t, data, name, results, corpus)
    t.clock.lap("tracking")
    t.clock.synchronize()
    return tables


def _tables(t: Training, data: Data, name: str, results: SplitResults, corpus: Corpus) -> dict[str, object]:
    split = data.splits[name]
    if isinstance(t.task, HasLossTables):
        losses = results.values["losses"]
        assert isinstance(losses, Ragged)
        return t.task.loss_tables(losses.values.numpy(), split, data.splits["train"], data.vocabs)
    if results.predictions is None or not isinstance(t.task, HasInspector):
        return {}
    inspector = t.task.inspector(data.vocabs, t.model.head)
    tables = inspector.tables(*_scored(results.predictions, split))
    try:
        if corpus.fingerprint() != data.fingerprint:
            raise HydromelError(f"dataset={corpus.name} has changed since the start of the run")
        folder = Path(t.run.path) / run_schema.PREDICTIONS
        folder.mkdir(exist_ok=True)
        table = split_rows(data.rows, name, corpus)
        if len(split.index) < table.num_rows:  # rows whose label is ignored are left out
            table = table.take(pa.array(split.index))
        write_example(t, data, corpus, table)
        inspector.write(results.predictions, split, name, corpus, table, folder)
    except (HydromelError, OSError) as error:
        log.warning("the predictions of %s were not written: %s", name, error)
    return tables


def _scored(predictions: Predictions, split: Batch) -> tuple[Predictions, Batch]:
    """Return the predictions of the targets that count, and the split with these; cut ones have probability 0."""
    values, batch = scored_predictions(torch.from_numpy(predictions.values), split)
    if predictions.probability is None:
        return Predictions(values.numpy(), None), batch
    probability, _ = scored_predictions(torch.from_numpy(predictions.probability), split, missing=0.0)
    return Predictions(values.numpy(), probability.numpy()), batch
