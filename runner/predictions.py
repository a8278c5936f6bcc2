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

from runner import names
from runner.batch import Batch
from runner.batching.loader import Batching
from runner.batching.stream import Stream
from runner.build import build
from runner.columns import Data
from runner.errors import HydromelError
from runner.model import Model
from runner.ragged import Ragged
from runner.rows import IntArray, Rows, choose
from runner.task import START, Corpus, Head, Inspector, Predictions
from runner.train import device_of
from runner.training import Training
from runner.vocab import Vocab

Config = dict[str, Any]
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


def inspect(t: Training, data: Data, name: str, config: Config) -> dict[str, Any]:
    """Tables of detail of split `name` by the model as it is; its predictions are written to the run's folder.

    What cannot be written costs a warning, not the run: all else that it found is kept.
    """
    inspector: Inspector | None = t.task.inspector(data.vocabs)
    if not config["predictions"]:
        return {}
    split = data.splits[name]
    if inspector is None:
        return _loss_tables(t, data, split) if isinstance(t.task, TellsOfLosses) else {}
    t.clock.start()
    batches = t.batching.evaluation(split.to(t.clock.device), t.settings.eval_batch_size)
    predictions = predict(t.model, t.head, batches, t.bf16)
    t.clock.lap("evaluation")
    tables = inspector.tables(predictions, split)
    try:
        corpus: Corpus = build(config["dataset"], "dataset", {}, config["plugins"])
        if corpus.fingerprint() != data.fingerprint:
            raise HydromelError(f"dataset={corpus.name} is not what it was when the run began")
        folder = Path(t.run.path) / names.PREDICTIONS
        folder.mkdir(exist_ok=True)
        inspector.write(predictions, split, name, corpus, corpus.read()[name], folder)
    except (HydromelError, OSError) as error:
        log.warning("no predictions of %s are written: %s", name, error)
    t.clock.lap("tracking")
    t.clock.settle()
    return tables


def _loss_tables(t: Training, data: Data, split: Batch) -> dict[str, Any]:
    assert isinstance(t.task, TellsOfLosses)
    t.clock.start()
    losses = token_losses(t.model, t.batching, split, t.settings.eval_batch_size, t.bf16)
    t.clock.lap("evaluation")
    t.clock.settle()
    return t.task.loss_tables(losses, split, data.splits["train"], data.vocabs)
