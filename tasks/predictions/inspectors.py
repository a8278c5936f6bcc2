"""Inspectors of a finished run: detailed tables, and files in the data set's format with gold and predicted columns.

Shapes: B rows, N predictions (one per row, or one per real token).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.common.files import write_text
from runner.inference.outcomes import Outcomes
from runner.interfaces import Corpus, Predictions
from runner.ragged.batch import Batch
from runner.ragged.rows import Rows
from runner.text.arrow import array, lengths_of, list_column, offsets_of
from tasks.datasets.conll import ColumnsFile
from tasks.datasets.conllu import Conllu
from tasks.metrics.calibration import calibration
from tasks.metrics.example_scores import of_answers, of_spans
from tasks.predictions.span_listing import Listing
from tasks.spans.errors import Comparison
from tasks.spans.schemes import Conversion
from tasks.spans.tags import OUTSIDE, Scheme, SpanArrays, SpanTags, headline_mode, spans
from tasks.targets import answer_rows, answers, place

ESCAPED = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclass(frozen=True)
class LabelInspector:
    """The inspector of a task with one label per row.

    Attributes:
        labels: (C,) names of the classes.
        answer: name of the predicted column.
    """

    labels: tuple[str, ...]
    answer: Literal["label"] = "label"

    def strings(self, answers: IntArray, offsets: IntArray) -> pa.Array:
        """Return the labels (B,) of predicted ids."""
        return pa.array(self.labels, pa.string()).take(pa.array(answers))

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, Any]:
        """Return the `calibration` of the predictions."""
        return {"calibration": calibration(predictions.probability, predictions.answers == answers(split).numpy())}

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.tsv`: gold and predicted label, probability and place of each row, in the split's order."""
        columns = (answers(split).tolist(), predictions.answers.tolist(), predictions.probability.tolist())
        labels = escaped(pa.array(self.labels, pa.string())).to_pylist()
        lines = ["gold\tpredicted\tscore\tplace"]
        for row, (gold, predicted, score) in enumerate(zip(*columns, strict=True)):
            lines.append(f"{labels[gold]}\t{labels[predicted]}\t{score:.6f}\t{place(table, row)}")
        write_text(folder / f"{name}.tsv", "\n".join(lines) + "\n")


@dataclass(frozen=True)
class TagInspector:
    """The inspector of a task with one tag per token.

    Attributes:
        tags: (C,) the data set's tags.
        scheme: how they encode spans; None: plain tags.
        to_own: conversion from learned tags to `tags`; None if they are the same.
        answer: name of the predicted column.
    """

    tags: tuple[str, ...]
    scheme: Scheme | None
    to_own: Conversion | None
    answer: Literal["tags"] = "tags"

    def strings(self, answers: IntArray, offsets: IntArray) -> pa.Array:
        """Return the data set's tags (N,) of predicted ids of learned tags; rows start at `offsets` (B+1,)."""
        return pa.array(self.tags, pa.string()).take(pa.array(self._own(answers, offsets)))

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, Any]:
        """Return the `calibration` of all tokens.

        Tags that encode spans also have `calibration_in_spans` (of tokens predicted to be inside a span), `errors` and
        `type_confusion`.
        """
        correct = predictions.answers == answers(split).numpy()
        tables = {"calibration": calibration(predictions.probability, correct)}
        if self.scheme is None:
            return tables
        _, predicted = self._own_ids(predictions.answers, split)
        inside = SpanTags.of(self.tags).prefix[predicted] != OUTSIDE
        tables["calibration_in_spans"] = calibration(predictions.probability[inside], correct[inside])
        return tables | self._compare(predictions, split, self.scheme).tables()

    def outcomes(self, predicted: IntArray, split: Batch, by_span: bool) -> Outcomes:
        """Return counts per row from predicted ids (N,) of learned tags.

        They are the `right`, `predicted` and `gold` spans if `by_span`, else the `right` tags and all `answers`.
        """
        if self.scheme is None or not by_span:
            return of_answers(*self._own_ids(predicted, split), split)
        gold_spans, predicted_spans = self._spans(predicted, split, self.scheme)
        return of_spans(gold_spans, predicted_spans, answer_rows(split).host_offsets)

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.conll`: all columns of the data, gold and predicted tag, and a blank line after each sentence.

        For tags that encode spans also write `errors.txt`. Tokens cut off by max_length are omitted, as in all figures.

        Raises:
            HydromelError: a file cannot be written, or the data file has changed since the run read it.
        """
        rows = answer_rows(split)
        texts, separator = token_texts(corpus, table)
        names = escaped(pa.array(self.tags, pa.string()))
        gold_and_predicted = (names.take(pa.array(ids)) for ids in self._own_ids(predictions.answers, split))
        lines = pc.binary_join_element_wise(first_tokens(texts, rows), *gold_and_predicted, separator)
        sentences = pc.binary_join(list_column(lines, rows.host_offsets), "\n").to_pylist()
        write_text(folder / f"{name}.conll", "\n\n".join(sentences) + "\n\n")
        if self.scheme is not None:
            comparison = self._compare(predictions, split, self.scheme)
            write_text(folder / "errors.txt", Listing(comparison, rows.host_offsets, table).text())

    def _own_ids(self, predicted: IntArray, split: Batch) -> tuple[IntArray, IntArray]:
        """Return gold (N,) and predicted (N,) ids of the data set's tags, from predicted ids of learned tags."""
        offsets = answer_rows(split).host_offsets
        return self._own(answers(split).numpy(), offsets), self._own(predicted, offsets)

    def _own(self, ids: IntArray, offsets: IntArray) -> IntArray:
        return ids if self.to_own is None else self.to_own(ids, offsets)

    def _compare(self, predictions: Predictions, split: Batch, scheme: Scheme) -> Comparison:
        gold, predicted = self._spans(predictions.answers, split, scheme)
        return Comparison(gold, predicted, SpanTags.of(self.tags).types)

    def _spans(self, predicted: IntArray, split: Batch, scheme: Scheme) -> list[SpanArrays]:
        """Return gold and predicted spans, in the mode of the headline figures, from predicted ids of learned tags."""
        tags, offsets = SpanTags.of(self.tags), answer_rows(split).host_offsets
        return [spans(ids, offsets, tags, scheme, headline_mode(scheme)) for ids in self._own_ids(predicted, split)]


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
        if name in ("tokens", "tags") or column.type != pa.list_(pa.string()):
            continue
        if np.array_equal(lengths_of(column), lengths_of(tokens)):
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
