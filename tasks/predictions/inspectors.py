"""Inspectors of a finished run: detailed tables, and files in the data set's format with gold and predicted columns.

Shapes: B rows, N predictions (one per row, or one per real token).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.files import write_text
from runner.interfaces import Corpus, Predictions
from runner.ragged.batch import Batch
from runner.ragged.rows import Rows
from runner.text.arrow import array, lengths_of, list_column, offsets_of
from tasks.datasets.conll import ColumnsFile
from tasks.datasets.conllu import Conllu
from tasks.metrics.calibration import calibration
from tasks.predictions.span_listing import Listing
from tasks.spans.errors import Comparison
from tasks.spans.schemes import OwnTags
from tasks.spans.tags import OUTSIDE, Scheme, SpanTags, headline_mode, spans
from tasks.targets import place, target_ids, target_rows

ESCAPED = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class LabelInspector:
    """The inspector of a task with one label per row.

    Attributes:
        labels: (C,) names of the classes.
        column: name of the predicted column.
    """

    labels: tuple[str, ...]
    column: Literal["label"] = "label"

    def strings(self, ids: IntArray, offsets: IntArray) -> pa.Array:
        """Return the labels (B,) of predicted ids."""
        return pa.array(self.labels, pa.string()).take(pa.array(ids))

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, object]:
        """Return the `calibration` of the predictions."""
        return {"calibration": calibration(predictions.probability, predictions.ids == target_ids(split).numpy())}

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.tsv`: gold and predicted label, probability and place of each row, in the split's order."""
        columns = (target_ids(split).tolist(), predictions.ids.tolist(), predictions.probability.tolist())
        labels = escaped(pa.array(self.labels, pa.string())).to_pylist()
        lines = ["gold\tpredicted\tscore\tplace"]
        for row, (gold, predicted, score) in enumerate(zip(*columns, strict=True)):
            lines.append(f"{labels[gold]}\t{labels[predicted]}\t{score:.6f}\t{place(table, row)}")
        write_text(folder / f"{name}.tsv", "\n".join(lines) + "\n")


@dataclass(frozen=True)
class TagInspector:
    """The inspector of a task with one tag per token.

    Attributes:
        own: the data set's tags, and the conversion of learned tags to them.
        scheme: how the data set's tags encode spans; None: plain tags.
        column: name of the predicted column.
    """

    own: OwnTags
    scheme: Scheme | None
    column: Literal["tags"] = "tags"

    def strings(self, ids: IntArray, offsets: IntArray) -> pa.Array:
        """Return the data set's tags (N,) of predicted ids of learned tags; rows start at `offsets` (B+1,)."""
        return pa.array(self.own.tags, pa.string()).take(pa.array(self.own.ids(ids, offsets)))

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, object]:
        """Return the `calibration` of all tokens.

        Tags that encode spans also have `calibration_in_spans` (of tokens predicted to be inside a span), `errors` and
        `type_confusion`.
        """
        correct = predictions.ids == target_ids(split).numpy()
        tables: dict[str, object] = {"calibration": calibration(predictions.probability, correct)}
        if self.scheme is None:
            return tables
        _, predicted = self._own_ids(predictions.ids, split)
        inside = SpanTags.of(self.own.tags).prefix[predicted] != OUTSIDE
        tables["calibration_in_spans"] = calibration(predictions.probability[inside], correct[inside])
        return tables | self._compare(predictions, split, self.scheme).tables()

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.conll`: all columns of the data, gold and predicted tag, and a blank line after each sentence.

        For tags that encode spans also write `errors.txt`. Tokens cut off by max_length are omitted, as in all figures.

        Raises:
            HydromelError: a file cannot be written, or the data file has changed since the run read it.
        """
        rows = target_rows(split)
        texts, separator = token_texts(corpus, table)
        names = escaped(pa.array(self.own.tags, pa.string()))
        gold_and_predicted = (names.take(pa.array(ids)) for ids in self._own_ids(predictions.ids, split))
        lines = pc.binary_join_element_wise(first_tokens(texts, rows), *gold_and_predicted, separator)
        sentences = pc.binary_join(list_column(lines, rows.host_offsets), "\n").to_pylist()
        write_text(folder / f"{name}.conll", "\n\n".join(sentences) + "\n\n")
        if self.scheme is not None:
            comparison = self._compare(predictions, split, self.scheme)
            write_text(folder / "errors.txt", Listing(comparison, rows.host_offsets, table).text())

    def _own_ids(self, predicted: IntArray, split: Batch) -> tuple[IntArray, IntArray]:
        """Return gold (N,) and predicted (N,) ids of the data set's tags, from predicted ids of learned tags."""
        offsets = target_rows(split).host_offsets
        return self.own.ids(target_ids(split).numpy(), offsets), self.own.ids(predicted, offsets)

    def _compare(self, predictions: Predictions, split: Batch, scheme: Scheme) -> Comparison:
        """Return gold and predicted spans, in the mode of the headline figures."""
        tags, offsets, mode = SpanTags.of(self.own.tags), target_rows(split).host_offsets, headline_mode(scheme)
        own_ids = self._own_ids(predictions.ids, split)
        gold, predicted = (spans(ids, offsets, tags, scheme, mode) for ids in own_ids)
        return Comparison(gold, predicted, tags.types)


def token_texts(corpus: Corpus, table: pa.Table) -> tuple[pa.ListArray, str]:
    """Return the columns of each token as one string, and their separator.

    For column files these are the original lines. For other data they are all columns with one string per token,
    `escaped` and separated by tabs.
    """
    if isinstance(corpus, ColumnsFile | Conllu):
        return corpus.token_lines(table)
    tokens = array(table["tokens"])
    columns = [tokens.flatten()]
    for name in table.column_names:
        column = array(table[name])
        is_strings = name not in ("tokens", "tags") and column.type == pa.list_(pa.string())
        if is_strings and np.array_equal(lengths_of(column), lengths_of(tokens)):
            columns.append(column.flatten())
    lines = pc.binary_join_element_wise(*map(escaped, columns), "\t")
    return list_column(lines, offsets_of(tokens)), "\t"


def escaped(strings: pa.Array) -> pa.Array:
    """Return strings (N,) that are safe in a table cell: tabs and line ends become `\\t`, `\\n`, `\\r`."""
    for special, written in ESCAPED.items():
        strings = pc.replace_substring(strings, special, written)
    return strings


def first_tokens(texts: pa.ListArray, rows: Rows) -> pa.Array:
    """Return the first strings of each list, as many as the row has tokens in `rows`: (N,)."""
    places = np.repeat(offsets_of(texts)[:-1] - rows.host_offsets[:-1], rows.host_lengths) + np.arange(rows.n_tokens)
    return texts.flatten().take(pa.array(places))
