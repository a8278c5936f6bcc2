"""Pairs of texts: the table of their texts, and rows that join the two texts of a pair.

The columns of a second text have the names of those of the first, with `_b` appended: `tokens` and `tokens_b`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from runner.common.errors import HydromelError
from runner.interfaces import Pairs, ReadsPairs, Task
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.arrow import array, lengths_of, list_column
from runner.text.blocks import Blocks
from runner.text.features import TokenFeature
from runner.text.vocab import EOS, Vocab

SECOND = "_b"  # end of the names of columns of the second text
TOKENS_B = f"tokens{SECOND}"
SEGMENT = "segment"  # a column that every table of texts has: `a` at tokens of the first text, `b` at the others
SEPARATOR = EOS  # the special id between joined texts


def pairs_of(task: Task) -> Pairs | None:
    """Return how a task reads pairs; None if each row has one text."""
    return task.pairs if isinstance(task, ReadsPairs) else None


def check_texts(table: pa.Table | Blocks, task: Task, dataset: str) -> None:
    """Raise a HydromelError unless both the data set and the task have one text per row, or both have two."""
    has_pairs, pairs = TOKENS_B in table.column_names, pairs_of(task)
    if pairs is not None and not has_pairs:
        raise HydromelError(
            f"task.pairs={pairs} needs two texts per row, but dataset={dataset} has no column {TOKENS_B}; name both "
            "texts, as dataset.text_columns={a: premise, b: hypothesis} does, or use task.pairs=null"
        )
    if has_pairs and pairs is None:
        advice = (
            "choose task.pairs=apart (each is encoded by itself) or task.pairs=joined (one row of both)"
            if isinstance(task, ReadsPairs)
            else f"task={task.name} reads one; use task=classify, or a data set of single texts"
        )
        raise HydromelError(f"dataset={dataset} has two texts per row (tokens and {TOKENS_B}); {advice}")


def columns_of_pairs(features: Mapping[str, TokenFeature]) -> list[str]:
    """Return the columns of pairs that features read, of both texts, including `tokens` and `tokens_b`."""
    firsts = dict.fromkeys(["tokens", *(feature.column for feature in features.values() if feature.column != SEGMENT)])
    return [column for first in firsts for column in (first, f"{first}{SECOND}")]


def table_of_texts(pairs: pa.Table, features: Mapping[str, TokenFeature]) -> pa.Table:
    """Return a table of 2B texts, a, b, a, b, ..., from one of B pairs: the columns that features read, and `segment`.

    Raises:
        HydromelError: there is no such column of one of the texts.
    """
    n_pairs, columns = pairs.num_rows, columns_of_pairs(features)
    for column in columns:
        if column not in pairs.column_names:
            raise HydromelError(
                f"features read the column {column.removesuffix(SECOND)} of both texts of a pair, but there is no "
                f"column {column}; the data set has {', '.join(pairs.column_names)}"
            )
    order = pa.array(np.arange(2 * n_pairs).reshape(2, n_pairs).T.ravel())
    table = {
        first: pa.concat_arrays([array(pairs[first]), array(pairs[second])]).take(order)
        for first, second in zip(columns[::2], columns[1::2], strict=True)
    }
    if any(feature.column == SEGMENT for feature in features.values()):
        lengths = lengths_of(table["tokens"])
        names = pa.array(["a", "b"], pa.string()).take(pa.array(np.repeat(np.arange(2 * n_pairs) % 2, lengths)))
        table[SEGMENT] = list_column(names, np.concatenate(([0], np.cumsum(lengths))))
    return pa.table(table)


def join_texts(batch: Batch, vocabs: Mapping[str, Vocab]) -> Batch:
    """Return pairs (packed, on the CPU) as rows of one text each: the first text, `SEPARATOR`, the second text.

    Raises:
        HydromelError: the vocabulary of a feature has no separator.
    """
    ends_of_first = batch.rows.host_offsets[1::2]
    rows = Rows(batch.rows.host_lengths.reshape(-1, 2).sum(axis=1) + 1, torch.device("cpu"))

    def joined(name: str, feature: Ragged) -> Ragged:
        if SEPARATOR not in vocabs[name].specials:
            raise HydromelError(f"features.{name}: its vocabulary has no {SEPARATOR}, which task.pairs=joined needs")
        ids = np.insert(feature.values.numpy(), ends_of_first, vocabs[name].specials.index(SEPARATOR))
        return Ragged(torch.from_numpy(ids), rows, "packed")

    return Batch({name: joined(name, feature) for name, feature in batch.features.items()}, batch.target, batch.index)


def read_texts(table: pa.Table, task: Task, features: Mapping[str, TokenFeature]) -> pa.Table:
    """Return the table that features are computed from: that of the texts, if rows are pairs."""
    return table if pairs_of(task) is None else table_of_texts(table, features)


def arrange_texts(batch: Batch, task: Task, vocabs: Mapping[str, Vocab]) -> Batch:
    """Return the rows as the task's model reads them: pairs are joined if the task says so."""
    return join_texts(batch, vocabs) if pairs_of(task) == "joined" else batch
