"""Helpers of all tasks: reading targets from a table, and cross entropy.

Shapes: B rows, N targets (one per row, or one per real token), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.common.arrays import BoolArray, FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.interfaces import Encoder
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.arrow import lengths_of, list_column, mask_of, offsets_of, refuse
from runner.text.vocab import Vocab

SHOWN_LABELS = 12  # most known labels listed in an error message
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def column(table: pa.Table, name: str, task: str) -> pa.Array:
    """Return a column of a corpus as one contiguous array.

    Raises:
        HydromelError: the corpus has no such column.
    """
    if name not in table.column_names:
        raise HydromelError(
            f"task={task} needs the column '{name}', but this data set has {', '.join(table.column_names)}; "
            "choose another data set with dataset=NAME"
        )
    return table[name].combine_chunks()


def place(table: pa.Table, row: int) -> str:
    """Return the position of a row for messages: `file:line` if the table has it, else the 1-based row number."""
    if "origin" in table.column_names:
        return str(table["origin"][row].as_py())
    path = (table.schema.metadata or {}).get(b"path")
    if path is None or "line" not in table.column_names:
        return f"row {row + 1}"
    return f"{path.decode()}:{table['line'][row].as_py()}"


def is_ignored(strings: pa.Array, ignore: Sequence[str | int]) -> BoolArray:
    """Return a mask (N,) of the labels or tags that are ignored: those named by `ignore`, and missing values."""
    named = pa.array([str(label) for label in ignore], pa.string())
    return mask_of(pc.or_(pc.is_null(strings), pc.is_in(strings, value_set=named)))


def without_ignored(lists: pa.ListArray, ignore: Sequence[str | int]) -> tuple[pa.ListArray, IntArray]:
    """Return the lists of tags (B,) without ignored tags, and the index (M,) of each remaining tag among all tags."""
    tags = lists.flatten()
    kept = ~is_ignored(tags, ignore)
    before = np.concatenate(([0], np.cumsum(kept)))
    return list_column(tags.filter(pa.array(kept)), before[offsets_of(lists)]), np.flatnonzero(kept)


def label_ids(
    strings: pa.Array, vocab: Vocab, ignore: Sequence[str | int], at: Callable[[int], str], what: str
) -> IntArray:
    """Return the int64 ids (N,) of labels or tags (N,): `IGNORED`, or the id in the vocabulary.

    Messages name the place `at(index)` of a string, and `what` it is: label or tag.

    Raises:
        HydromelError: a string that is neither ignored nor in the vocabulary.
    """
    ids = vocab.encode(strings).astype(np.int64)
    ids[is_ignored(strings, ignore)] = IGNORED
    missing = np.flatnonzero((ids < 0) & (ids != IGNORED))
    if len(missing):
        first = int(missing[0])
        more = f" (nor are {len(missing) - 1} more in this split)" if len(missing) > 1 else ""
        shown = ", ".join(vocab.tokens[:SHOWN_LABELS]) + (", ..." if len(vocab) > SHOWN_LABELS else "")
        raise HydromelError(
            f"{at(first)}: {what} '{strings[first].as_py()}' is not in the training set{more}, which has "
            f"{len(vocab)} {what}s: {shown}"
        )
    return ids


def target_vocab(strings: Iterable[pa.Array], ignore: Sequence[str | int], what: str) -> Vocab:
    """Return the vocabulary of the labels or tags of the training set, which come in arrays, without ignored ones.

    Raises:
        HydromelError: there are none, or all are ignored.
    """
    n_ignored = 0

    def counted() -> Iterator[pa.Array]:
        nonlocal n_ignored
        for part in strings:
            ignored = is_ignored(part, ignore)
            n_ignored += int(ignored.sum())
            yield part.filter(pa.array(~ignored))

    vocab = Vocab.labels(counted())
    if not len(vocab):
        ignored = f": all {n_ignored:,} are ignored (missing, -100 or task.ignore)" if n_ignored else ""
        raise HydromelError(f"train has no {what}{ignored}")
    return vocab


def unseen_labels(columns: Iterable[pa.Array], known: Vocab, ignore: Sequence[str | int]) -> list[str]:
    """Return the labels or tags in any of the columns (N,) that are neither known nor ignored, sorted."""
    distinct = pa.chunked_array([pc.unique(column) for column in columns], pa.string()).unique()
    return sorted(distinct.filter(pa.array((known.encode(distinct) < 0) & ~is_ignored(distinct, ignore))).to_pylist())


def class_ids(batch: Batch, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return target ids (N,) that can index C classes, and a mask (N,) of the targets that have a loss.

    The others, ignored ones and those that the training set lacks, have the id 0.
    """
    target = target_ids(batch)
    has_loss = (target >= 0) & (target < n_classes)
    return target.masked_fill(~has_loss, 0), has_loss


def labels_of_rows(table: pa.Table, task: str) -> pa.Array:
    """Return the label of each row, (B,): the column `label`, or `labels` if each row has exactly one.

    Raises:
        HydromelError: the corpus has neither column, or a row has no label or several.
    """
    if "label" in table.column_names or "labels" not in table.column_names:
        return column(table, "label", task)
    lists = column(table, "labels", task)
    lengths = lengths_of(lists)

    def message(row: int) -> str:
        labels = ", ".join(lists[row].as_py()) or "none"
        return (
            f"{place(table, row)}: {lengths[row]} labels ({labels}), but task={task} with task.labels=one needs one "
            "per row; use task.labels=many"
        )

    refuse(lengths != 1, message)
    return lists.flatten()


def label_lists(table: pa.Table, task: str) -> pa.ListArray:
    """Return the labels of each row, (B,) lists: the column `labels`, or `label` as lists of one.

    Raises:
        HydromelError: the corpus has neither column.
    """
    if "labels" in table.column_names:
        return column(table, "labels", task)
    labels = column(table, "label", task)
    return list_column(labels, np.arange(len(labels) + 1))


def label_set_ids(ids: IntArray, offsets: IntArray) -> Tensor:
    """Return the targets of rows with sets of labels, (B, K) int64: each row's distinct ids, then -1; K may be 0.

    Args:
        ids: (N,) ids of all labels, row after row; negative ones are no labels.
        offsets: (B+1,) start of each row among them, and their number.
    """
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    pairs = np.unique(np.stack([row, ids])[:, ids >= 0], axis=1)
    starts = np.searchsorted(pairs[0], np.arange(len(offsets)))
    sets = np.full((len(offsets) - 1, int(np.diff(starts).max(initial=0))), -1, dtype=np.int64)
    sets[pairs[0], np.arange(pairs.shape[1]) - starts[pairs[0]]] = pairs[1]
    return torch.from_numpy(sets)


def label_sets(batch: Batch, n_labels: int) -> Tensor:
    """Return the sets of labels of a batch as a mask (B, n_labels); labels with higher ids are left out."""
    assert isinstance(batch.target, Tensor)
    ids = batch.target
    is_label = (ids >= 0) & (ids < n_labels)
    mask = torch.zeros(len(ids), n_labels + 1, dtype=torch.bool, device=ids.device)
    # Entries that are not labels go to an additional column, which is dropped: selecting labels would synchronise.
    return mask.scatter_(1, ids.masked_fill(~is_label, n_labels), True)[:, :n_labels]


def numbers_of(table: pa.Table, task: str) -> FloatArray:
    """Return the targets of regression, (B,): the column `value`, or `label` if its strings are decimal numbers.

    Raises:
        HydromelError: the corpus has neither column, or a target is missing, no number, or not finite.
    """
    if "value" not in table.column_names and "label" not in table.column_names:
        raise HydromelError(
            f"task={task} needs numbers in the column 'value' or 'label', but this data set has "
            f"{', '.join(table.column_names)}; choose another data set with dataset=NAME"
        )
    given = values = table["value" if "value" in table.column_names else "label"].combine_chunks()

    def message(row: int) -> str:
        return f"{place(table, row)}: {given[row].as_py()!r:.60} is no finite number; task={task} needs one per row"

    if pa.types.is_string(values.type):
        trimmed = pc.utf8_trim_whitespace(values)
        refuse(~mask_of(pc.fill_null(pc.match_substring_regex(trimmed, _NUMBER), False)), message)
        values = pc.utf8_ltrim(trimmed, "+").cast(pa.float64())
    numbers: FloatArray = values.cast(pa.float64()).to_numpy(zero_copy_only=False)  # NaN if missing
    refuse(~np.isfinite(numbers), message)
    return numbers.copy()  # Arrow's memory is read-only


def target_ids(batch: Batch) -> Tensor:
    """Return the int64 target ids (N,) of a batch, one per row or one per real token."""
    return (batch.target.tokens() if isinstance(batch.target, Ragged) else batch.target).long()


def target_rows(batch: Batch) -> Rows:
    """Return the rows of a target with one id per token.

    They have the true lengths, even in the unmasked layout, where the features' rows include the padding.
    """
    if not isinstance(batch.target, Ragged):
        raise TypeError("this batch has one target per row; one per token is needed")
    return batch.target.rows


def require_tokens(encoder: Encoder, task: str) -> None:
    """Check that an encoder computes one vector per token.

    Raises:
        HydromelError: the encoder computes one vector per row.
    """
    if not encoder.per_token:
        raise HydromelError(
            f"task={task} needs one vector per token, but this encoder computes one per row; "
            "use encoder=conv, rnn or transformer"
        )


def token_vectors(encoded: Ragged, batch: Batch) -> Tensor:
    """Return the encoder's outputs (N, D) at the tokens that have a target."""
    rows = target_rows(batch)
    if encoded.layout == "packed" and encoded.rows.n_tokens == rows.n_tokens:
        return encoded.values
    # Select by the target's rows: in the unmasked layout the features' rows include the padding.
    rectangle = encoded.values if encoded.layout == "padded" else encoded.pad().values
    return rectangle.flatten(0, 1).index_select(0, rows.flat)


def cross_entropy(scores: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return -log softmax(scores (N, C)) at the target ids (N,): (N,) in nats, in float32 or wider.

    Args:
        smoothing: share of the target distribution spread evenly over all C classes (Szegedy et al. 2016, section 7).
    """
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return F.cross_entropy(exact, target, reduction="none", label_smoothing=smoothing)


def softmax(scores: Tensor) -> Tensor:
    """Return the softmax over classes of scores (N, C), in float32 or wider."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(dim=1)


def sum_per_row(values: Tensor, batch: Batch) -> Tensor:
    """Return (B,) the sums of `values` (N,), one per target, over the targets of each row."""
    if not isinstance(batch.target, Ragged):
        return values
    rows = batch.target.rows
    return values.new_zeros(rows.n_rows).index_add(0, rows.row, values)
