"""A finished language model that reads prompts of any length, and then goes on token by token.

Shapes: B prompts, R rows that are being continued, V strings of the vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.data.numericalize import TARGET, columns_of
from runner.inference.generation.text import Text
from runner.inference.trained import Trained
from runner.interfaces import START, State
from runner.model import device_of
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, spans
from runner.text.open_vocabulary import admit
from runner.text.vocab import EOS

READ_TOKENS = 16_384  # of all prompts together that are in memory at once: longer ones are read in windows
_CPU = torch.device("cpu")
Inputs = dict[str, IntArray]  # for each feature (R,) ids, one a row


@runtime_checkable
class NextToken(Protocol):
    """A task that says at each token what the next one is."""

    feature: str  # which one is predicted
    unit: Literal["line", "stream"]


@runtime_checkable
class VocabularyOutput(Protocol):
    def log_probabilities(self, vectors: Tensor) -> Tensor:
        """(N, D) -> (N, V) in float32 at least; -inf for `<pad>`."""
        ...


@runtime_checkable
class NextTokenHead(Protocol):
    """Its scores are vectors (N, D), of which `output` makes probabilities of every string."""

    output: VocabularyOutput


@dataclass(frozen=True)
class Prompts:
    """Texts as integers; each begins with `<eos>`, as rows and streams do in training.

    Attributes:
        ids: of each feature, rows of at least one token.
        unknown: strings of each prompt that training has not seen, each once.
        following: of each feature, (V,) ids for every string that may be predicted.
    """

    ids: dict[str, Ragged]
    unknown: list[list[str]]
    following: Inputs

    def __len__(self) -> int:
        return len(self.unknown)

    @property
    def last(self) -> Inputs:
        """The last token of each prompt, with which generation begins."""
        return {name: one.values.numpy()[one.rows.host_offsets[1:] - 1] for name, one in self.ids.items()}

    def inputs(self, tokens: IntArray) -> Inputs:
        """Predicted tokens (R,) as the next input."""
        return {name: ids[tokens] for name, ids in self.following.items()}


class LanguageModel:
    """A finished run that predicts the next token.

    Args:
        trained: the run.
        where: names it in errors.
        allow_unk: whether `<unk>` may be said.

    Attributes:
        end: id of `<eos>` where it ends a text (`task.unit=line`); None where it is the end of a line (`stream`).
        forbidden: (V,) true for strings that are never said.

    Raises:
        HydromelError: it is no language model, or its inputs are not made of tokens alone.
    """

    def __init__(self, trained: Trained, where: str, allow_unk: bool) -> None:
        task, head = trained.task, trained.model.head
        if not isinstance(task, NextToken) or not isinstance(head, NextTokenHead):
            raise HydromelError(f"{where}: task={task.name} predicts no next token; generation needs a run of task=lm")
        self.task, self.features = trained.task, trained.features
        self.model, self.output = trained.model, head.output
        self.vocabs, self.feature, self.unit, self.where = trained.vocabs, task.feature, task.unit, where
        self.vocab = trained.vocabs[TARGET]
        self._check()
        self.device = device_of(self.model)
        self.text = Text.of(trained.corpus, self.vocab)
        self.end = self.vocab.ids[EOS] if self.unit == "line" else None
        self.forbidden = torch.zeros(len(self.vocab), dtype=torch.bool, device=self.device)
        if self.vocab.unk is not None and not allow_unk:
            self.forbidden[self.vocab.unk] = True

    def _check(self) -> None:
        columns = {feature.column for feature in self.features.values()}
        if len(columns) > 1:
            raise HydromelError(
                f"{self.where}: its inputs are made of the columns {', '.join(sorted(columns))}, and of a text that is "
                "being made there are tokens alone"
            )
        if self.vocab.merges is not None and len(self.features) > 1:
            raise HydromelError(
                f"{self.where}: it reads {', '.join(self.features)}, and of pieces of words one is enough"
            )
        if self.feature not in self.features or self.vocab.tokens != self.vocabs[self.feature].tokens:
            raise HydromelError(f"{self.where}: damaged, its vocabularies of {self.feature} and of answers differ")

    def prompts(self, texts: Sequence[str]) -> Prompts:
        """Texts as the model reads them. New words are spelt, or looked up, by models that can.

        Raises:
            HydromelError: a line end where rows are lines, or unknown strings where the vocabulary has no `<unk>`.
        """
        if self.unit == "line" and (several := [text for text in texts if "\n" in text]):
            raise HydromelError(
                f"prompt '{_short(several[0])}' has a line end, and this run knows single lines (task.unit=line); "
                "leave it out, or give each line as a prompt of its own (--prompts)"
            )
        lines = [[self.text.split(line) for line in text.split("\n")] for text in texts]
        whole = self.vocab.merges is None
        # the vocabulary is the first row, so that every feature of what will follow is known; pieces have no other
        inputs, lengths = self._inputs([[*self.vocab.tokens] if whole else [], *itertools.chain(*lines)])
        ends = np.cumsum(lengths)[np.cumsum([0, *map(len, lines)])]
        rows = Rows(np.diff(ends), _CPU)
        ids = {name: Ragged(one[ends[0] :], rows, "packed") for name, one in inputs.items()}
        if not whole:
            return Prompts(ids, [[] for _ in texts], {self.feature: np.arange(len(self.vocab))})
        following = {name: one[1 : ends[0]].numpy().astype(np.int64) for name, one in inputs.items()}
        for name, found in following.items():
            found[self.vocab.ids[EOS]] = self.vocabs[name].ids[EOS]
        return Prompts(ids, self._unknown(ids[self.feature], lines), following)

    def _inputs(self, lines: list[list[str]]) -> tuple[dict[str, Tensor], IntArray]:
        """Ids of each feature, (N,), `<eos>` standing before each line; and how many those are of each line."""
        (column,) = {feature.column for feature in self.features.values()}
        table = pa.table({column: pa.array(lines, pa.list_(pa.string()))})
        columns = columns_of(table, self.features, admit(self.model, self.vocabs, self.features, table))
        batch = self.task.encode(columns, table, self.vocabs)
        inputs = {name: one.values for name, one in batch.features.items()}
        return inputs, next(iter(columns.values())).rows.host_lengths + 1

    def _unknown(self, ids: Ragged, lines: list[list[list[str]]]) -> list[list[str]]:
        """Strings of each prompt, given as lines, whose id is that of `<unk>`."""
        offsets = ids.rows.host_offsets
        missing = -1 if self.vocab.unk is None else self.vocab.unk
        places = np.flatnonzero(ids.values.numpy() == missing)
        unknown: list[list[str]] = [[] for _ in lines]
        for row in np.unique(np.searchsorted(offsets, places, side="right") - 1):
            strings = [string for line in lines[row] for string in (EOS, *line)]
            own = places[(places >= offsets[row]) & (places < offsets[row + 1])] - offsets[row]
            unknown[row] = list(dict.fromkeys(strings[place] for place in own))
        if self.vocab.unk is None and any(unknown):
            raise HydromelError(
                f"{self.where}: it knows no {shown([*itertools.chain(*unknown)])}, and its vocabulary has no <unk>"
            )
        return unknown

    @torch.inference_mode()
    def read(self, prompts: Prompts) -> State:
        """The state in front of each prompt's last token; long prompts are read in windows, so memory is bounded."""
        rows = next(iter(prompts.ids.values())).rows
        lengths = rows.host_lengths - 1
        window = max(1, READ_TOKENS // max(1, len(lengths)))
        state: State = START
        for begin in range(0, int(lengths.max(initial=0)), window):
            starts = rows.host_offsets[:-1] + np.minimum(begin, lengths)
            some, tokens = spans(starts, np.clip(lengths - begin, 0, window), rows.device)
            batch = self._batch({name: one.select_by(some, tokens) for name, one in prompts.ids.items()})
            _, state = self.model.encoder(self.model.embedding(batch.features), state)
            self._check_state(state)
        return state

    @torch.inference_mode()
    def step(self, inputs: Mapping[str, IntArray], state: State) -> tuple[Tensor, State]:
        """One token of each row, (R,), state before it -> log P of what is next, (R, V) float64, state after it."""
        rows = Rows(np.ones(len(next(iter(inputs.values()))), dtype=np.int64), _CPU)
        features = {name: Ragged(torch.from_numpy(ids), rows, "packed") for name, ids in inputs.items()}
        vectors, state = self.model(self._batch(features), state)
        self._check_state(state)
        return self.output.log_probabilities(vectors).double(), state

    def _batch(self, features: dict[str, Ragged]) -> Batch:
        rows = next(iter(features.values())).rows
        nothing = Ragged(torch.zeros(rows.n_tokens, dtype=torch.int64), rows, "packed")
        return Batch(features, nothing, np.arange(rows.n_rows), continues=True).to(self.device)

    def _check_state(self, state: State) -> None:
        if state is None:
            raise HydromelError(
                f"{self.where}: its encoder ({type(self.model.encoder).__name__}) carries no state from token to token"
            )


def shown(strings: Sequence[str], most: int = 10) -> str:
    """The first of some strings, for a message."""
    more = f" and {len(strings) - most:,} more" if len(strings) > most else ""
    return ", ".join(f"'{_short(one)}'" for one in strings[:most]) + more


def _short(text: str) -> str:
    return " ".join((text if len(text) <= 40 else f"{text[:37]}...").split()) or text
