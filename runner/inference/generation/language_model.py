"""A trained language model that reads prompts of any length and continues them token by token, and its tokenization.

Shapes: B prompts, R rows that are being continued, V strings of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.data.numericalize import TARGET
from runner.inference.trained import TrainedModel
from runner.interfaces import START, Corpus, State
from runner.model import device_of
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows, select_spans
from runner.text.arrow import split_characters
from runner.text.bpe import decode
from runner.text.pieces import Pieces, pieces_by
from runner.text.tokenizers import WHITESPACE, Tokenizer, tokenizer_of
from runner.text.vocab import Vocab

READ_TOKENS = 16_384  # tokens of all prompts in memory at once; longer prompts are read in windows
LINE_END = "\n"  # marks a line's end in lists of tokens; equals no word and no character of a line
_CPU = torch.device("cpu")
Unit = Literal["word", "char"]
Inputs = dict[str, IntArray]  # (R,) ids of each feature, one for each row


@runtime_checkable
class NextToken(Protocol):
    """A task that predicts the next token at each token."""

    feature: str  # the predicted feature
    unit: Literal["line", "stream"]


@runtime_checkable
class VocabularyOutput(Protocol):
    """An output layer over the vocabulary."""

    def log_probabilities(self, vectors: Tensor) -> Tensor:
        """(N, D) -> (N, V) in float32 at least; -inf for `<pad>`."""


@runtime_checkable
class NextTokenHead(Protocol):
    """A head whose scores are vectors (N, D), which `output` turns into probabilities of every string."""

    output: VocabularyOutput


@runtime_checkable
class HasUnit(Protocol):
    """A corpus that declares the unit of its tokens."""

    unit: Unit


@dataclass(frozen=True)
class Text:
    """A tokenization into words between white space, or characters; the end of a line is the token `LINE_END`."""

    unit: Unit  # `word` or `char`
    tokenizer: Tokenizer = WHITESPACE  # tokenizer of a model of words
    by_pieces: Pieces | None = None  # how words are split into pieces; None: whole words

    @classmethod
    def of(cls, corpus: Corpus, vocab: Vocab) -> Text:
        """Return the corpus's tokenization, or characters if all strings of the vocabulary are single characters."""
        if isinstance(corpus, HasUnit):
            return cls(corpus.unit, tokenizer_of(corpus), pieces_by(vocab))
        is_characters = all(len(string) == 1 for string in vocab.strings)
        return cls("char" if is_characters else "word", tokenizer_of(corpus), pieces_by(vocab))

    def split(self, line: str) -> list[str]:
        """Split a line into tokens."""
        tokens: list[str] = self.split_all(pa.array([line], pa.string()))[0].as_py()
        return tokens

    def split_all(self, lines: pa.Array) -> pa.ListArray:
        """Split lines (B,) into lists of tokens."""
        return split_characters(lines) if self.unit == "char" else self.tokenizer.spans(lines).tokens()

    def pieces(self, tokens: Iterable[str], behind: str) -> Iterator[str]:
        """Yield the text of each token, with the space before it; `behind` is the text that precedes them."""
        is_start = not behind or behind[-1].isspace()
        if self.by_pieces is not None:
            yield from _spell(tokens, self.by_pieces, is_start)
            return
        for token in tokens:
            yield token if is_start or self.unit == "char" or token == LINE_END else f" {token}"
            is_start = token == LINE_END

    def joined(self, tokens: Iterable[str], behind: str) -> str:
        """Return the text of all tokens."""
        return "".join(self.pieces(tokens, behind))


def _spell(tokens: Iterable[str], pieces: Pieces, is_start: bool) -> Iterator[str]:
    """Yield the text of pieces of words; a word starts with a space, except at the start of a line."""
    for is_end, group in groupby(tokens, key=lambda token: token == LINE_END):
        if is_end:
            yield from group
        else:
            for text in decode(map(pieces.bytes_of, group)):
                yield text.removeprefix(" ") if is_start else text
                is_start = is_start and not text
        is_start = is_end


@dataclass(frozen=True)
class Prompts:
    """Prompts as integers; each starts with `<eos>`, as rows and streams do in training."""

    ids: dict[str, Ragged]  # ids of each feature, in rows of at least one token
    unknown: list[list[str]]  # the strings of each prompt that are not in the vocabulary, without repetition
    following: Inputs  # (V,) ids of each feature for every string that may be predicted

    def __len__(self) -> int:
        return len(self.unknown)

    @property
    def last(self) -> Inputs:
        """The last token of each prompt: the first input of generation."""
        return {name: ids.values.numpy()[ids.rows.host_offsets[1:] - 1] for name, ids in self.ids.items()}

    def inputs(self, tokens: IntArray) -> Inputs:
        """Convert predicted tokens (R,) to the next input."""
        return {name: ids[tokens] for name, ids in self.following.items()}


class LanguageModel:
    """A model that predicts the next token; any other, or one that reads several columns, is a HydromelError.

    Args:
        where: the model's name in error messages.
        allow_unk: allow `<unk>` to be generated.

    Attributes:
        end: id of `<eos>` where it ends a text (`task.unit=line`); None where it only ends a line (`stream`).
        forbidden: (V,) true for strings that are never generated.
    """

    def __init__(self, trained: TrainedModel, where: str, allow_unk: bool) -> None:
        task, head = trained.task, trained.model.head
        if not isinstance(task, NextToken) or not isinstance(head, NextTokenHead):
            raise HydromelError(f"{where}: task={task.name} predicts no next token; use a run of task=lm")
        self.trained, self.task, self.features = trained, trained.task, trained.features
        self.model, self.output = trained.model, head.output
        self.vocabs, self.feature, self.unit, self.where = trained.vocabs, task.feature, task.unit, where
        self.vocab = trained.vocabs[TARGET]
        columns = {feature.column for feature in self.features.values()}
        if len(columns) > 1:
            raise HydromelError(
                f"{where}: its inputs need the columns {', '.join(sorted(columns))}, but a generated text has only "
                "tokens; use a run whose features read a single column"
            )
        self.text = Text.of(trained.corpus, self.vocab)
        if self.text.by_pieces is not None and len(self.features) > 1:
            raise HydromelError(
                f"{where}: it reads the features {', '.join(self.features)}; with pieces of words, use a run with a "
                "single feature"
            )
        if self.feature not in self.features or self.vocab.strings != self.vocabs[self.feature].strings:
            raise HydromelError(f"{where}: damaged, its vocabularies of {self.feature} and {TARGET} differ")
        (self.column,) = columns
        self.device = device_of(self.model)
        self.end = self.vocab.eos if self.unit == "line" else None
        self.forbidden = torch.zeros(len(self.vocab), dtype=torch.bool, device=self.device)
        if self.vocab.unk is not None and not allow_unk:
            self.forbidden[self.vocab.unk] = True

    def prompts(self, texts: Sequence[str]) -> Prompts:
        """Convert texts to the model's ids. New words are spelt or looked up by models that support it.

        A line end where rows are lines, or an unknown string where the vocabulary has no `<unk>`, is a HydromelError.
        """
        if self.unit == "line" and (several := [text for text in texts if "\n" in text]):
            raise HydromelError(
                f"prompt '{_shorten(several[0])}' has a line end, but this run reads single lines (task.unit=line); "
                "remove it, or pass each line as a separate prompt (--prompts)"
            )
        lines = [[self.text.split(line) for line in text.split("\n")] for text in texts]
        whole = self.text.by_pieces is None
        # All strings of the vocabulary are read as the first row, which gives every feature's id of every string that
        # may be generated. Pieces of words need no such row: they have a single feature.
        texts_read = [[*self.vocab.strings] if whole else [], *chain(*lines)]
        batch, lengths = self.encode(pa.array(texts_read, pa.list_(pa.string())))
        ends = np.cumsum(lengths)[np.cumsum([0, *map(len, lines)])]
        rows = Rows(np.diff(ends), _CPU)
        ids = {name: Ragged(feature.values[ends[0] :], rows, "packed") for name, feature in batch.features.items()}
        if not whole:
            return Prompts(ids, [[] for _ in texts], {self.feature: np.arange(len(self.vocab))})
        following = {}
        for name, feature in batch.features.items():
            special = [self.vocabs[name].specials.index(role) for role in self.vocab.specials]
            following[name] = np.concatenate((special, feature.values[1 : ends[0]].numpy())).astype(np.int64)
        return Prompts(ids, self._unknown(ids[self.feature], lines), following)

    def encode(self, lines: pa.ListArray) -> tuple[Batch, IntArray]:
        """Return lines of tokens as one text, as in training, and the number of ids of each line with its `<eos>`."""
        table = pa.table({self.column: lines})
        columns = self.trained.ids_of(table)
        batch = self.task.encode(columns, table, self.vocabs)
        return batch, next(iter(columns.values())).rows.host_lengths + 1

    def strings(self, ids: Iterable[int]) -> list[str]:
        """Return the strings of predicted ids, with `LINE_END` for line ends, for `text.pieces` and `text.joined`."""
        return [LINE_END if token == self.vocab.eos else self.vocab.tokens[token] for token in ids]

    def _unknown(self, ids: Ragged, lines: list[list[list[str]]]) -> list[list[str]]:
        """Return the unknown strings of each prompt (given as lines); raise a HydromelError if they have no id."""
        offsets = ids.rows.host_offsets
        missing = -1 if self.vocab.unk is None else self.vocab.unk
        places = np.flatnonzero(ids.values.numpy() == missing)
        unknown: list[list[str]] = [[] for _ in lines]
        rows = np.searchsorted(offsets, places, side="right") - 1
        for row in np.unique(rows):
            strings = [string for line in lines[row] for string in (LINE_END, *line)]
            unknown[row] = list(dict.fromkeys(strings[place] for place in places[rows == row] - offsets[row]))
        if self.vocab.unk is None and any(unknown):
            raise HydromelError(
                f"{self.where}: unknown strings {shown([*chain(*unknown)])}, and the vocabulary has no <unk>; "
                "leave them out"
            )
        return unknown

    @torch.inference_mode()
    def read(self, prompts: Prompts) -> State:
        """Return the state before each prompt's last token; prompts are read in windows, so that memory is bounded."""
        rows = next(iter(prompts.ids.values())).rows
        lengths = rows.host_lengths - 1
        window = max(1, READ_TOKENS // max(1, len(lengths)))
        state: State = START
        for first in range(0, int(lengths.max(initial=0)), window):
            # Prompts that have ended get windows of length 0, which leave their state as it is.
            starts = rows.host_offsets[:-1] + np.minimum(first, lengths)
            window_rows, tokens = select_spans(starts, np.clip(lengths - first, 0, window), rows.device)
            batch = self._batch({name: ids.select_by(window_rows, tokens) for name, ids in prompts.ids.items()})
            _, state = self.model.encode(batch.features, state)
            self._check_state(state)
        return state

    @torch.inference_mode()
    def step(self, inputs: Mapping[str, IntArray], state: State) -> tuple[Tensor, State]:
        """Read one token of each row, (R,); return log P of the next token, (R, V) float64, and the new state."""
        rows = Rows(np.ones(len(next(iter(inputs.values()))), dtype=np.int64), _CPU)
        features = {name: Ragged(torch.from_numpy(ids), rows, "packed") for name, ids in inputs.items()}
        vectors, state = self.model(self._batch(features), state)
        self._check_state(state)
        return self.output.log_probabilities(vectors).double(), state

    def _batch(self, features: dict[str, Ragged]) -> Batch:
        rows = next(iter(features.values())).rows
        target = Ragged(torch.zeros(rows.n_tokens, dtype=torch.int64), rows, "packed")  # not used
        return Batch(features, target, np.arange(rows.n_rows), carries_state=True).to(self.device)

    def _check_state(self, state: State) -> None:
        if state is None:
            raise HydromelError(
                f"{self.where}: its encoder ({type(self.model.encoder).__name__}) carries no state from token to "
                "token; use a run with an encoder that does, such as encoder=lstm"
            )


def shown(strings: Sequence[str], most: int = 10) -> str:
    """Return the first strings of a list, quoted, for a message."""
    more = f" and {len(strings) - most:,} more" if len(strings) > most else ""
    return ", ".join(f"'{_shorten(string)}'" for string in strings[:most]) + more


def _shorten(text: str) -> str:
    """Return a text in one line of at most 40 characters."""
    return " ".join((text if len(text) <= 40 else f"{text[:37]}...").split()) or text
