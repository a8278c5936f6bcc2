"""What the runner asks of a task, a model's parts and a corpus. `tasks/` holds the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor, nn

from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab

State = Any  # what a recurrent encoder carries from one window of a text to the next; None: rows by themselves
START: State = ()  # the state at the begin of a text that is read in windows


@dataclass(frozen=True)
class Loss:
    """A sum and what it counts (rows or tokens). Division happens once per update, over all of its micro-batches."""

    total: Tensor
    count: int


@dataclass(frozen=True)
class Predictions:
    """What a model answers, for every row or real token of a split in the split's own order, on the host.

    Attributes:
        answers: (N,) int64 ids.
        probability: (N,) float32 of that answer, 0 to 1.
    """

    answers: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]


class Corpus(Protocol):
    """Text as published: one Arrow table a split (`train`, `valid`, `test`).

    Columns: `tokens` list<string>; `label` string (classify); `tags` list<string> (tag); any others of the file;
    optionally `line` int64, the line of the file on which each row begins. The schema's metadata may hold `path`.
    """

    name: str

    def fingerprint(self) -> str:
        """A hash of the files' contents and of how they are read; cheap beside reading them."""
        ...

    def read(self) -> dict[str, pa.Table]: ...


class Embedding(Protocol):
    """Ids of features -> one vector a token."""

    output_size: int

    def __call__(self, features: Mapping[str, Ragged]) -> Ragged: ...


class Encoder(Protocol):
    """Token vectors -> token vectors (or one vector a row: `per_token` is then false, its rows have length 1)."""

    output_size: int
    per_token: bool

    def __call__(self, x: Ragged, state: State) -> tuple[Ragged, State]: ...


class Head(Protocol):
    """Token vectors -> scores, loss and predictions. Scores are (B, C), or (N, C) for the real tokens alone: one a
    possible answer, or whatever else the head makes its losses and predictions from.
    """

    def __call__(self, encoded: Ragged, batch: Batch) -> Tensor: ...

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Summed over rows or real tokens, with their number."""
        ...

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        """The terms of that sum: (B,) one a row, or a packed `Ragged` of one a real token (see `per_row`)."""
        ...

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        """(B,) or (N,) int64: the answers."""
        ...

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor:
        """(B, C) or (N, C), in float32 at least: of every possible answer by itself."""
        ...


class Metric(Protocol):
    """Gathers predictions on the device, without synchronising, and computes once at the end."""

    @property
    def takes(self) -> Literal["answers", "losses"]:
        """What the head predicts, or its losses: (B,), or (N,) for real tokens."""
        ...

    def update(self, said: Tensor, batch: Batch) -> None: ...

    def compute(self) -> dict[str, Any]:
        """Named figures (floats, documented units) and, by name, tables of detail (nested dicts and lists)."""
        ...


class Inspector(Protocol):
    """Looks into a finished run's predictions, and says them in the data set's own words."""

    @property
    def answer(self) -> Literal["label", "tags"]:
        """The column of answers: one a row, or one a token."""
        ...

    def strings(self, answers: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> pa.Array:
        """(N,) what predicted ids mean. Rows begin at `offsets` (B+1,), where answers are tokens' own."""
        ...

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, Any]:
        """Tables of detail by name (nested dicts and lists), which join the split's metrics."""
        ...

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write files to `folder` that hold gold and predicted answers beside the text.

        Args:
            split: the `name` (test, valid) of `corpus`, as integers.
            table: the same as read from `corpus`.
        """
        ...


class Task(Protocol):
    """What an answer is: its targets, its head, its metric."""

    name: str
    quality: str  # the metric by which runs are compared and the best checkpoint is chosen
    causal: bool  # whether a token's vector may depend on the tokens before it alone

    def target_vocab(self, train: pa.Table, vocabs: Mapping[str, Vocab]) -> Vocab:
        """The possible answers, from train alone."""
        ...

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """A whole split as a `Batch`: packed features, and targets by `vocabs['target']`."""
        ...

    def count(self, batch: Batch) -> int:
        """How many answers of `batch` are supervised, from what the host knows."""
        ...

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> Head:
        """The head for what `encoder` gives; an error where a task for tokens gets an encoder of rows."""
        ...

    def metric(self, vocabs: Mapping[str, Vocab]) -> Metric: ...

    def inspector(self, vocabs: Mapping[str, Vocab]) -> Inspector | None:
        """What looks into predictions; None where there is nothing to be looked into (language models)."""
        ...

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, Any]:
        """The metric on `test` of the most frequent answer of `train` (or of answers' frequencies alone)."""
        ...

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> dict[str, dict[str, float]]:
        """The same figures (no tables) of other models as simple, by name, with the `seconds` that each took."""
        ...


class Schedule(Protocol):
    """The factor by which the configured learning rate is multiplied at each update."""

    def factor(self, update: int) -> float:
        """For update number `update`, counted from 0."""
        ...

    def observe(self, quality: float) -> None:
        """Told the validation quality (larger is better) after each evaluation."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...
