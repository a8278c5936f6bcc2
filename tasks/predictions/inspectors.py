"""A finished run's answers: tables of detail, and files in the data set's own format with gold and predicted columns.

Shapes: B rows, N answers (of rows, or of real tokens).
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
    """One answer a row.

    Attributes:
        labels: (C,) the names of the possible answers.
        answer: the column of answers.
    """

    labels: tuple[str, ...]
    answer: Literal["label"] = "label"

    def strings(self, answers: IntArray, offsets: IntArray) -> pa.Array:
        """(B,) labels of ids."""
        return pa.array(self.labels, pa.string()).take(pa.array(answers))

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, Any]:
        """`calibration` of the answers."""
        return {"calibration": calibration(predictions.probability, predictions.answers == answers(split).numpy())}

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """`NAME.tsv`: gold, predicted, its probability, and where the row stands; in the split's own order."""
        columns = (answers(split).tolist(), predictions.answers.tolist(), predictions.probability.tolist())
        labels = escaped(pa.array(self.labels, pa.string())).to_pylist()
        lines = ["gold\tpredicted\tscore\tplace"]
        for row, (gold, predicted, score) in enumerate(zip(*columns, strict=True)):
            lines.append(f"{labels[gold]}\t{labels[predicted]}\t{score:.6f}\t{place(table, row)}")
        write_text(folder / f"{name}.tsv", "\n".join(lines) + "\n")


@dataclass(frozen=True)
class TagInspector:
    """One answer a token.

    Attributes:
        tags: (C,) the data set's tags.
        scheme: how they form spans; None: plain tags.
        to_own: from learned tags to these; None where they are the same.
        answer: the column of answers.
    """

    tags: tuple[str, ...]
    scheme: Scheme | None
    to_own: Conversion | None
    answer: Literal["tags"] = "tags"

    def strings(self, answers: IntArray, offsets: IntArray) -> pa.Array:
        """(N,) the data set's tags, from ids of learned ones, of rows that begin at `offsets` (B+1,)."""
        return pa.array(self.tags, pa.string()).take(pa.array(self._own(answers, offsets)))

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, Any]:
        """`calibration` of all tokens; of spans also `calibration_in_spans` (tokens that are predicted to be in one),
        `errors` and `type_confusion`.
        """
        right = predictions.answers == answers(split).numpy()
        found = {"calibration": calibration(predictions.probability, right)}
        if self.scheme is None:
            return found
        _, predicted = self._own_ids(predictions.answers, split)
        inside = SpanTags.of(self.tags).prefix[predicted] != OUTSIDE
        found["calibration_in_spans"] = calibration(predictions.probability[inside], right[inside])
        return found | self._compare(predictions, split, self.scheme).tables()

    def outcomes(self, said: IntArray, split: Batch, by_span: bool) -> Outcomes:
        """Of each row `right`, `predicted` and `gold` spans, or else `right` and `answers`, from learned tags (N,)."""
        if self.scheme is None or not by_span:
            return of_answers(*self._own_ids(said, split), split)
        gold, predicted = self._spans(said, split, self.scheme)
        return of_spans(gold, predicted, answer_rows(split).host_offsets)

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """`NAME.conll`: every column of the data, then gold, then predicted, a blank line after each sentence; of spans
        also `errors.txt`. Tokens that max_length cut are left out, as they are from all figures.

        Raises:
            HydromelError: a file cannot be written, or is not what was read when the run began.
        """
        rows = answer_rows(split)
        texts, separator = token_texts(corpus, table)
        names = escaped(pa.array(self.tags, pa.string()))
        answered = (names.take(pa.array(ids)) for ids in self._own_ids(predictions.answers, split))
        lines = pc.binary_join_element_wise(first_tokens(texts, rows), *answered, separator)
        sentences = pc.binary_join(list_column(lines, rows.host_offsets), "\n").to_pylist()
        write_text(folder / f"{name}.conll", "\n\n".join(sentences) + "\n\n")
        if self.scheme is not None:
            compared = self._compare(predictions, split, self.scheme)
            write_text(folder / "errors.txt", Listing(compared, rows.host_offsets, table).text())

    def _own_ids(self, said: IntArray, split: Batch) -> tuple[IntArray, IntArray]:
        """(N,) gold and (N,) predicted, in the data set's tags, from learned ones."""
        offsets = answer_rows(split).host_offsets
        return self._own(answers(split).numpy(), offsets), self._own(said, offsets)

    def _own(self, ids: IntArray, offsets: IntArray) -> IntArray:
        return ids if self.to_own is None else self.to_own(ids, offsets)

    def _compare(self, predictions: Predictions, split: Batch, scheme: Scheme) -> Comparison:
        gold, predicted = self._spans(predictions.answers, split, scheme)
        return Comparison(gold, predicted, SpanTags.of(self.tags).types)

    def _spans(self, said: IntArray, split: Batch, scheme: Scheme) -> list[SpanArrays]:
        """Gold and predicted ones, as the headline figures read them, from learned tags (N,)."""
        tags, offsets = SpanTags.of(self.tags), answer_rows(split).host_offsets
        return [spans(ids, offsets, tags, scheme, headline_mode(scheme)) for ids in self._own_ids(said, split)]


def token_texts(corpus: Corpus, table: pa.Table) -> tuple[pa.ListArray, str]:
    """The columns of each token as one string, and what separates them.

    Of a column file its own lines; of other data the columns that hold one string a token, `escaped`, and tabs.
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
    """(N,) strings that fit into a cell: tabs and line ends in them are written `\\t`, `\\n`, `\\r`."""
    for special, written in ESCAPED.items():
        strings = pc.replace_substring(strings, special, written)
    return strings


def first_tokens(texts: pa.ListArray, rows: Rows) -> pa.Array:
    """(N,) of each row as many strings as `rows` has tokens there."""
    places = np.repeat(offsets_of(texts)[:-1] - rows.host_offsets[:-1], rows.host_lengths) + np.arange(rows.n_tokens)
    return texts.flatten().take(pa.array(places))
