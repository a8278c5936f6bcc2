"""The rows of a run's data set that an exported file is compared on: as its inputs, and with the outputs of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from runner.batching.plan import batches_by_length
from runner.common.arrays import IntArray
from runner.common.errors import unknown
from runner.data.numericalize import TARGET, cut_split, with_unseen
from runner.data.pairs import arrange_texts
from runner.export.formats import Arrays
from runner.export.programs import LinesProgram, Program, RowsProgram
from runner.export.traceable import NO_SYMBOL, characters_of
from runner.inference.generation.language_model import NextToken, NextTokenHead
from runner.inference.trained import TrainedModel
from runner.interfaces import START
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.ragged.shapes import places_in
from runner.text.characters import Spelling

BATCH = 32  # rows that the run computes at once, packed
Outputs = dict[str, npt.NDArray[np.generic]]  # of one row, by the name of the output: (L, *) if per token, else (*)


@dataclass(frozen=True)
class Padding:
    """The amount and the content of the padding of inputs."""

    extra: int = 0  # places beyond the longest row
    poison: np.random.Generator | None = None  # fill padding with ids drawn from it; None: with the id of padding


@dataclass(frozen=True)
class RealRows:
    """A split of a run's data set, packed, as its model reads it."""

    trained: TrainedModel
    name: str  # of the split
    split: Batch
    spelling: dict[str, Spelling]  # of the forms of features that are read by characters

    @classmethod
    def read(cls, trained: TrainedModel, name: str | None) -> RealRows:
        """Return a split of the run's data set; None: test, or valid if there is no test.

        Raises:
            HydromelError: the data set cannot be read, or has no such split.
        """
        tables = trained.corpus.read()
        name = name or ("test" if "test" in tables else "valid")
        if name not in tables:
            raise unknown("split", name, tables, f"dataset={trained.corpus.name}")
        task = trained.task
        columns = trained.ids_of(tables[name])
        spelling = {name: module.spelled.spelling for name, module in characters_of(trained.model).items()}
        vocabs = {
            **trained.vocabs,
            TARGET: with_unseen(task, trained.vocabs[TARGET], {split: [table] for split, table in tables.items()}),
        }
        whole = task.encode(columns, tables[name], vocabs)
        if isinstance(task, NextToken):  # lines by themselves, also of a run that reads them as one text
            rows = Rows(next(iter(columns.values())).rows.host_lengths + 1, torch.device("cpu"))
            assert isinstance(whole.target, Ragged)
            features = {name: Ragged(ids.values, rows, "packed") for name, ids in whole.features.items()}
            target = Ragged(whole.target.values, rows, "packed")
            return cls(trained, name, Batch(features, target, np.arange(rows.n_rows)), spelling)
        split = arrange_texts(cut_split(task, trained.truncation, whole, is_trained_on=False), task, trained.vocabs)
        return cls(trained, name, split, spelling)

    @property
    def n_rows(self) -> int:
        return len(self.split.index)

    def lengths(self, row: int) -> IntArray:
        """Return the number of tokens of each text of a row."""
        return np.atleast_1d(self.split.lengths[row])

    def choose(self, count: int, rng: np.random.Generator) -> IntArray:
        """Return the numbers of up to `count` rows in random order: the shortest, the longest, and others."""
        by_length = np.argsort(places_in(self.split.lengths), kind="stable")
        others = rng.permutation(by_length[1:-1])[: max(0, count - 2)]
        return rng.permutation(np.unique(np.concatenate([by_length[:1], by_length[-1:], others])))

    def inputs(self, rows: Sequence[int] | IntArray, padding: Padding) -> Arrays:
        """Return some rows as inputs of a program, padded: the features, then the lengths."""
        part = self.split.select(np.asarray(rows))
        width = part.rows.max_len + padding.extra
        places = part.rows.n_rows * max(1, width)
        mask = np.arange(max(1, width)) < part.rows.host_lengths[:, None]
        pair = (len(rows), part.texts) if part.texts > 1 else (len(rows),)
        arrays: Arrays = []
        for name, feature in part.features.items():
            values = feature.values.numpy().astype(np.int64)
            fill, most = 0, len(self.trained.vocabs[name])
            if name in self.spelling:
                values, fill = _symbols(self.spelling[name], values), NO_SYMBOL
                most = int(self.spelling[name].symbols.max(initial=0)) + 1
            padded: IntArray = np.full((places, *values.shape[1:]), fill, dtype=np.int64)
            if padding.poison is not None:
                padded = padding.poison.integers(0, most, padded.shape)
            padded[mask.ravel()] = values
            arrays.append(padded.reshape(*pair, max(1, width), *values.shape[1:]))
        return [*arrays, part.rows.host_lengths.reshape(pair)]

    def batches(self, size: int) -> Iterator[IntArray]:
        """Yield the numbers of all rows, `size` at a time, from short to long."""
        yield from batches_by_length(places_in(self.split.lengths), size)


def _symbols(spelling: Spelling, ids: IntArray) -> IntArray:
    """Return the symbols of forms (N,), (N, W), with `NO_SYMBOL` after the last of each."""
    starts, lengths = spelling.offsets[ids], spelling.offsets[ids + 1] - spelling.offsets[ids]
    width = max(1, int(lengths.max(initial=0)))
    inside = np.arange(width) < lengths[:, None]
    places = np.where(inside, starts[:, None] + np.arange(width), 0)
    if not len(spelling.symbols):
        return np.full((len(ids), width), NO_SYMBOL)
    symbols: IntArray = np.where(inside, spelling.symbols[places], NO_SYMBOL).astype(np.int64)
    return symbols


@torch.inference_mode()
def outputs_of_run(program: Program, real: RealRows, rows: IntArray) -> dict[int, Outputs]:
    """Return the outputs of the run's own model for some rows, by the row's number; computed packed."""
    found: dict[int, Outputs] = {}
    for place in batches_by_length(places_in(real.split.lengths[rows]), BATCH):
        batch = real.split.select(rows[place], carries_state=not isinstance(program, RowsProgram))
        values = (
            _of_rows(program, real.trained, batch)
            if isinstance(program, RowsProgram)
            else _of_lines(program, real.trained, batch)
        )
        found.update(zip(rows[place].tolist(), values, strict=True))
    return found


def _of_rows(program: RowsProgram, trained: TrainedModel, batch: Batch) -> list[Outputs]:
    model = trained.model
    scores, _ = model(batch, None)
    columns = [model.head.predict(scores, batch), model.head.probabilities(scores, batch), scores]
    arrays = [column.numpy() for column in columns if column is not None]
    ends = np.cumsum(batch.targets_per_row)[:-1]
    split = [np.split(array, ends) if program.per_token else list(array) for array in arrays]
    names = [port.name for port in program.outputs]
    return [dict(zip(names, of_row, strict=True)) for of_row in zip(*split, strict=True)]


def _of_lines(program: Program, trained: TrainedModel, batch: Batch) -> list[Outputs]:
    """Return log P of every string after each token, or only after the last one, of rows with their full context."""
    head = trained.model.head
    assert isinstance(head, NextTokenHead)
    assert isinstance(batch.target, Ragged)
    vectors, _ = trained.model(batch, None if isinstance(program, LinesProgram) else START)
    ends = batch.rows.host_offsets[1:]
    if not isinstance(program, LinesProgram):
        every = head.output.log_probabilities(vectors).numpy()
        return [{"log_probability": of_row} for of_row in np.split(every, ends[:-1])]
    losses = trained.model.head.losses(vectors, batch)
    following = -(losses.tokens() if isinstance(losses, Ragged) else losses).numpy()
    last = head.output.log_probabilities(vectors[torch.from_numpy(ends - 1)]).numpy()
    rows = zip(np.split(following, ends[:-1]), last, strict=True)
    return [{"log_probability": of_row, "next": of_last} for of_row, of_last in rows]


@torch.inference_mode()
def decoded(
    trained: TrainedModel, real: RealRows, row: int, scores: npt.NDArray[np.generic]
) -> npt.NDArray[np.generic]:
    """Return the answers that the run's own head gives for the scores of a row, (L, C) or (C,)."""
    batch = real.split.select(np.array([row]))
    given: Tensor = torch.from_numpy(np.ascontiguousarray(scores))
    answers: npt.NDArray[np.generic] = trained.model.head.predict(
        given if given.ndim > 1 else given[None], batch
    ).numpy()
    return answers
