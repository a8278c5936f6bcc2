"""A finished run's predictions: made once, after training, by the best checkpoint; looked into, and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.batching.strategy import Batching
from runner.batching.stream import Stream
from runner.common import run_schema
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.data.numericalize import Data
from runner.inference.outcomes import write_outcomes
from runner.interfaces import START, Corpus, Head, Inspector, Predictions
from runner.model import Model, device_of
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, choose
from runner.text.vocab import Vocab
from runner.training.state import Training

Said = Predictions | npt.NDArray[np.float64]  # answers, or (N,) losses: whichever the task's metric takes
log = logging.getLogger(__name__)


@runtime_checkable
class TellsOfLosses(Protocol):
    """A task that says where its losses come from (language models: they have no answers to be looked into)."""

    def loss_tables(
        self, losses: npt.NDArray[np.float64], split: Batch, train: Batch, vocabs: Mapping[str, Vocab]
    ) -> dict[str, Any]:
        """Tables of detail by name, which join the split's metrics.

        Args:
            losses: (N,) of each token of `split`.
            train: what was learned from.
        """
        ...


def predict(model: Model, head: Head, batches: Iterable[Batch], bf16: bool) -> Predictions:
    """The answers of a split to rows that come in any order, in the split's own order."""
    answers: list[Tensor] = []
    probability: list[Tensor] = []
    index, lengths = [], []
    model.eval()
    with torch.inference_mode(), torch.autocast(device_of(model).type, torch.bfloat16, enabled=bf16):
        for batch in batches:
            scores, _ = model(batch, None)
            answer = head.predict(scores, batch)
            answers.append(answer)
            probability.append(head.probabilities(scores, batch).gather(1, answer[:, None]).squeeze(1).float())
            index.append(batch.index)
            lengths.append(answers_a_row(batch))
    rows = Rows(np.concatenate(lengths), torch.device("cpu"))
    _, order = choose(rows, np.argsort(np.concatenate(index)))
    found = (torch.cat(parts).cpu().index_select(0, order).numpy() for parts in (answers, probability))
    return Predictions(*found)


def token_losses(
    model: Model, batching: Batching | Stream, split: Batch, batch_size: int, bf16: bool
) -> npt.NDArray[np.float64]:
    """(N,) the loss of each token of a split, in the split's own order, by the batches that the strategy evaluates."""
    split, head, state = split.to(device_of(model)), cast(Head, model.head), START
    assert isinstance(split.target, Ragged)
    n_tokens = split.target.rows.n_tokens
    found = torch.full((n_tokens,), torch.nan, dtype=torch.float64, device=split.rows.device)
    # the same batches again, with places for answers, say where each loss belongs, whatever became of the order
    places = replace(split, target=split.target.with_values(torch.arange(n_tokens, device=found.device)))
    batches = (batching.evaluation(one, batch_size) for one in (split, places))
    model.eval()
    with torch.inference_mode(), torch.autocast(found.device.type, torch.bfloat16, enabled=bf16):
        for batch, there in zip(*batches, strict=True):
            scores, state = model(batch, state if batch.continues else None)
            losses = head.losses(scores, batch)
            assert isinstance(losses, Ragged)
            assert isinstance(there.target, Ragged)
            found.index_copy_(0, there.target.tokens(), losses.tokens().double())
    nats: npt.NDArray[np.float64] = found.cpu().numpy()
    return nats


def answers_a_row(batch: Batch) -> IntArray:
    """(B,) how many answers each row has; those of the target, since features of the unmasked layout claim too many."""
    if isinstance(batch.target, Ragged):
        return batch.target.rows.host_lengths
    return np.ones(len(batch.index), dtype=np.int64)


def answer(t: Training, split: Batch) -> Said:
    """What the model, as it is, says of a split: all that its figures, tables and files are made of, in one pass."""
    t.clock.start()
    if t.metric().takes == "losses":
        said: Said = token_losses(t.model, t.batching, split, t.settings.eval_batch_size, t.bf16)
    else:
        batches = t.batching.evaluation(split.to(t.clock.device), t.settings.eval_batch_size)
        said = predict(t.model, t.head, batches, t.bf16)
    t.clock.lap("evaluation")
    t.clock.settle()
    return said


def figures(t: Training, said: Said, split: Batch) -> dict[str, Any]:
    """The task's metric of what was said of all of a split."""
    metric = t.metric()
    metric.update(torch.from_numpy(flat(said)), split)
    return metric.compute()


def flat(said: Said) -> npt.NDArray[Any]:
    """(N,) what metrics take: answers, or losses."""
    return said.answers if isinstance(said, Predictions) else said


def inspect(t: Training, data: Data, name: str, said: Said, corpus: Corpus | None) -> dict[str, Any]:
    """Tables of detail of split `name`, from what was said of it; files about it are written to the run's folder.

    What cannot be written costs a warning, not the run: all else that it found is kept.

    Args:
        corpus: the run's data set; None where no tables and no predictions are wanted.
    """
    t.clock.start()
    try:
        write_outcomes(t.task, flat(said), name, data.splits[name], data.vocabs, Path(t.run.path))
    except HydromelError as error:
        log.warning("no outcomes of %s are written: %s", name, error)
    tables = {} if corpus is None else _tables(t, data, name, said, corpus)
    t.clock.lap("tracking")
    t.clock.settle()
    return tables


def _tables(t: Training, data: Data, name: str, said: Said, corpus: Corpus) -> dict[str, Any]:
    split = data.splits[name]
    if not isinstance(said, Predictions):
        if not isinstance(t.task, TellsOfLosses):
            return {}
        return t.task.loss_tables(said, split, data.splits["train"], data.vocabs)
    inspector: Inspector | None = t.task.inspector(data.vocabs)
    if inspector is None:
        return {}
    tables = inspector.tables(said, split)
    try:
        if corpus.fingerprint() != data.fingerprint:
            raise HydromelError(f"dataset={corpus.name} is not what it was when the run began")
        folder = Path(t.run.path) / run_schema.PREDICTIONS
        folder.mkdir(exist_ok=True)
        inspector.write(said, split, name, corpus, corpus.read()[name], folder)
    except (HydromelError, OSError) as error:
        log.warning("no predictions of %s are written: %s", name, error)
    return tables
