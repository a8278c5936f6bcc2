"""A finished run's predictions: made once, after training, by the best checkpoint; looked into, and written."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner import names
from runner.batch import Batch
from runner.build import build
from runner.columns import Data
from runner.errors import HydromelError
from runner.model import Model
from runner.ragged import Ragged
from runner.rows import IntArray, Rows, choose
from runner.task import Corpus, Head, Inspector, Predictions
from runner.train import device_of
from runner.training import Training

Config = dict[str, Any]
log = logging.getLogger(__name__)


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
    if inspector is None or not config["predictions"]:
        return {}
    t.clock.start()
    split = data.splits[name]
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
