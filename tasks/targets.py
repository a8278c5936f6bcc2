"""What the three tasks share: reading a table's answers, cross entropy, and the baseline of always one answer.

Shapes: N answers (rows, or real tokens), C possible answers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor

from runner.common.errors import HydromelError
from runner.interfaces import Encoder
from runner.layers.pooling import sum_pool
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.vocab import Vocab

SHOWN_LABELS = 12  # of the known ones in an error


def column(table: pa.Table, name: str, task: str) -> pa.Array:
    """One contiguous column of a corpus.

    Raises:
        HydromelError: the corpus has no such column.
    """
    if name not in table.column_names:
        raise HydromelError(
            f"task={task} needs the column '{name}', but this data set has {', '.join(table.column_names)}; "
            "choose another with dataset=NAME"
        )
    return table[name].combine_chunks()


def place(table: pa.Table, row: int) -> str:
    """Where row `row` stands: `file:line` as far as the table knows, else its number in the split, from 1."""
    if "origin" in table.column_names:
        return str(table["origin"][row].as_py())
    path = (table.schema.metadata or {}).get(b"path")
    if path is None or "line" not in table.column_names:
        return f"row {row + 1}"
    return f"{path.decode()}:{table['line'][row].as_py()}"


def answer_ids(strings: pa.Array, vocab: Vocab, at: Callable[[int], str], what: str) -> Tensor:
    """(N,) int64 ids of `strings`.

    Args:
        strings: (N,) labels or tags.
        vocab: those of train.
        at: where the n-th string stands, for the message.
        what: `label` or `tag`.

    Raises:
        HydromelError: a string that train lacks.
    """
    ids = vocab.encode(strings)
    missing = np.flatnonzero(ids < 0)
    if len(missing):
        first = int(missing[0])
        more = f" (nor are {len(missing) - 1} more of this split)" if len(missing) > 1 else ""
        shown = ", ".join(vocab.tokens[:SHOWN_LABELS]) + (", ..." if len(vocab) > SHOWN_LABELS else "")
        raise HydromelError(
            f"{at(first)}: {what} '{strings[first].as_py()}' is not in train{more}; its {len(vocab)} are {shown}"
        )
    return torch.from_numpy(ids.astype(np.int64))


def answers(batch: Batch) -> Tensor:
    """(N,) int64: the right answers, of rows or of real tokens."""
    return (batch.target.tokens() if isinstance(batch.target, Ragged) else batch.target).long()


def answer_rows(batch: Batch) -> Rows:
    """The rows of a target that has one answer a token; true ones, also where the features' claim too much."""
    if not isinstance(batch.target, Ragged):
        raise TypeError("this batch has one answer a row, not one a token")
    return batch.target.rows


def require_tokens(encoder: Encoder, task: str) -> None:
    """Let pass only encoders that give a vector for each token.

    Raises:
        HydromelError: this one gives one for each row.
    """
    if not encoder.per_token:
        raise HydromelError(
            f"task={task} needs a vector for each token, but this encoder gives one for each row; "
            "use encoder=conv, rnn or transformer"
        )


def token_vectors(encoded: Ragged, batch: Batch) -> Tensor:
    """(N, D) encoder outputs at the tokens that have an answer, and no others."""
    rows = answer_rows(batch)
    if encoded.layout == "packed" and encoded.rows.n_tokens == rows.n_tokens:
        return encoded.values
    # by the target's own rows: in the unmasked layout the features' rows reach into the padding
    rectangle = encoded.values if encoded.layout == "padded" else encoded.pad().values
    return rectangle.flatten(0, 1).index_select(0, rows.flat)


def cross_entropy(scores: Tensor, right: Tensor, smoothing: float = 0.0) -> Tensor:
    """(N,) -log softmax(scores (N, C)) at the `right` answers (N,), in nats and in float32 at least.

    Args:
        smoothing: share of the target that all C answers have in common (Szegedy et al. 2016, section 7).
    """
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return F.cross_entropy(exact, right, reduction="none", label_smoothing=smoothing)


def softmax(scores: Tensor) -> Tensor:
    """(N, C) of scores (N, C), in float32 at least."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(dim=1)


def per_row(losses: Tensor | Ragged) -> Tensor:
    """(B,) what each row adds to the loss, from a head's `losses`; rows without tokens add 0."""
    return sum_pool(losses) if isinstance(losses, Ragged) else losses


def majority_answers(train: Batch, test: Batch, n_labels: int) -> Tensor:
    """(N,) train's most frequent answer (of equal ones the first), for all of `test`."""
    return torch.bincount(answers(train), minlength=n_labels).argmax().expand(len(answers(test)))
