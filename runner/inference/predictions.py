"""The predictions of a finished run: computed once after training by the best checkpoint, analysed and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.common import run_schema
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.data.numericalize import Data
from runner.inference.outcomes import MetricInput, write_outcomes
from runner.interfaces import START, BatchingStrategy, Corpus, Head, Inspector, Predictions
from runner.model import Model, device_of
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_rows
from runner.text.vocab import Vocab
from runner.training.state import Training

SplitResults = Predictions | npt.NDArray[np.float64]  # predictions, or (N,) losses: the input of the task's metric
log = logging.getLogger(__name__)


@runtime_checkable
class HasLossTables(Protocol):
    """A task that analyses its losses: a language model, whose predictions are not analysed."""

    def loss_tables(
        self, losses: npt.NDArray[np.float64], split: Batch, train: Batch, vocabs: Mapping[str, Vocab]
    ) -> dict[str, object]:
        """Return tables of detail by name, which are added to the split's metrics.

        Args:
            losses: (N,) loss of each token of `split`, in nats.
            split: the analysed split.
            train: the training set.
            vocabs: vocabularies of the features and the target.
        """
        ...


def predict(model: Model, head: Head, batches: Iterable[Batch], bf16: bool) -> Predictions:
    """Predict all rows of a split, from batches in any order; the result is in the split's own order."""
    ids: list[Tensor] = []
    probability: list[Tensor] = []
    index, lengths = [], []
    model.eval()
    with torch.inference_mode(), torch.autocast(device_of(model).type, torch.bfloat16, enabled=bf16):
        for batch in batches:
            scores, _ = model(batch, None)
            predicted = head.predict(scores, batch)
            ids.append(predicted)
            probability.append(head.probabilities(scores, batch).gather(1, predicted[:, None]).squeeze(1).float())
            index.append(batch.index)
            lengths.append(predictions_per_row(batch))
    rows = Rows(np.concatenate(lengths), torch.device("cpu"))
    # Rows have several predictions, so they are put into the split's order token by token.
    _, order = select_rows(rows, np.argsort(np.concatenate(index)))
    columns = (torch.cat(parts).cpu().index_select(0, order).numpy() for parts in (ids, probability))
    return Predictions(*columns)


def token_losses(
    model: Model, batching: BatchingStrategy, split: Batch, batch_size: int, bf16: bool
) -> npt.NDArray[np.float64]:
    """Return (N,) the loss of each token, in the split's own order, computed on the strategy's evaluation batches."""
    split, head, state = split.to(device_of(model)), cast(Head, model.head), START
    assert isinstance(split.target, Ragged)
    n_tokens = split.target.rows.n_tokens
    nats = torch.full((n_tokens,), torch.nan, dtype=torch.float64, device=split.rows.device)
    # A strategy may reorder and cut rows. The same batches are made a second time with token positions as targets:
    # they say which token of the split each loss belongs to.
    places = replace(split, target=split.target.with_values(torch.arange(n_tokens, device=nats.device)))
    batches = (batching.evaluation_batches(source, batch_size) for source in (split, places))
    model.eval()
    with torch.inference_mode(), torch.autocast(nats.device.type, torch.bfloat16, enabled=bf16):
        for batch, places_batch in zip(*batches, strict=True):
            scores, state = model(batch, state if batch.carries_state else None)
            losses = head.losses(scores, batch)
            assert isinstance(losses, Ragged)
            assert isinstance(places_batch.target, Ragged)
            nats.index_copy_(0, places_batch.target.tokens(), losses.tokens().double())
    result: npt.NDArray[np.float64] = nats.cpu().numpy()
    return result


def predictions_per_row(batch: Batch) -> IntArray:
    """Return (B,) the number of predictions of each row.

    They are counted by the target, since features in the unmasked layout count padding too.
    """
    if isinstance(batch.target, Ragged):
        return batch.target.rows.host_lengths
    return np.ones(len(batch.index), dtype=np.int64)


def run_split(t: Training, split: Batch) -> SplitResults:
    """Run the current model over a split once; metrics, tables and files are all computed from the result."""
    t.clock.start()
    if t.metric().takes == "losses":
        results: SplitResults = token_losses(t.model, t.batching, split, t.eval_batch_size, t.bf16)
    else:
        batches = t.batching.evaluation_batches(split.to(t.clock.device), t.eval_batch_size)
        results = predict(t.model, t.head, batches, t.bf16)
    t.clock.lap("evaluation")
    t.clock.synchronize()
    return results


def figures(t: Training, results: SplitResults, split: Batch) -> dict[str, object]:
    """Return the task's metric over the results of a whole split."""
    metric = t.metric()
    metric.update(torch.from_numpy(metric_input(results)), split)
    return metric.compute()


def metric_input(results: SplitResults) -> MetricInput:
    """Return (N,) the input of metrics: predictions, or losses."""
    return results.answers if isinstance(results, Predictions) else results


def inspect(t: Training, data: Data, name: str, results: SplitResults, corpus: Corpus | None) -> dict[str, object]:
    """Return tables of detail of split `name`, and write its outcomes and predictions to the run's folder.

    A file that cannot be written causes a warning, not an error, so that the run keeps its other results.

    Args:
        corpus: the run's data set; None where no tables and no predictions are wanted.
    """
    t.clock.start()
    try:
        write_outcomes(t.task, metric_input(results), name, data.splits[name], data.vocabs, Path(t.run.path))
    except HydromelError as error:
        log.warning("the outcomes of %s are not written: %s", name, error)
    tables = {} if corpus is None else _tables(t, data, name, results, corpus)
    t.clock.lap("tracking")
    t.clock.synchronize()
    return tables


def _tables(t: Training, data: Data, name: str, results: SplitResults, corpus: Corpus) -> dict[str, object]:
    split = data.splits[name]
    if not isinstance(results, Predictions):
        if not isinstance(t.task, HasLossTables):
            return {}
        return t.task.loss_tables(results, split, data.splits["train"], data.vocabs)
    inspector: Inspector | None = t.task.inspector(data.vocabs)
    if inspector is None:
        return {}
    tables = inspector.tables(results, split)
    try:
        if corpus.fingerprint() != data.fingerprint:
            raise HydromelError(f"dataset={corpus.name} has changed since the start of the run")
        folder = Path(t.run.path) / run_schema.PREDICTIONS
        folder.mkdir(exist_ok=True)
        inspector.write(results, split, name, corpus, corpus.read()[name], folder)
    except (HydromelError, OSError) as error:
        log.warning("the predictions of %s are not written: %s", name, error)
    return tables
