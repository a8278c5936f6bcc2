"""Inspectors of a finished run: detailed tables, and files of gold and predicted columns or of span errors.

Shapes: B rows, N predictions (one per row, or one per real token).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from runner.common.arrays import IntArray
from runner.common.files import write_text
from runner.common.printable import printable
from runner.interfaces import Corpus, Predictions
from runner.ragged.batch import IGNORED, Batch
from runner.ragged.scored import NO_PREDICTION, scored_predictions, whole_targets, whole_values
from runner.text.arrow import array, lengths_of, list_column, offsets_of
from runner.text.formats.base import escaped
from tasks.datasets.conll import TokenLines
from tasks.metrics.metrics import by_name
from tasks.metrics.tables import calibration
from tasks.predictions.label_errors import LabelErrors
from tasks.spans.errors import KINDS, RIGHT, Comparison
from tasks.spans.schemes import OwnTags
from tasks.spans.table import OUTSIDE, Scheme, headline_mode
from tasks.spans.tags import SpanTags, spans
from tasks.targets import place, target_ids, target_rows

SHOWN = 50  # most errors listed of each kind, spread over the text
AROUND = 12  # tokens of context on either side
MEANING = {
    "boundary": "correct type, wrong bounds",
    "type": "correct bounds, wrong type",
    "both": "wrong bounds and wrong type, with common tokens",
    "missed": "gold span without a matching prediction",
    "spurious": "predicted span without a matching gold span",
}
CUT, CUT_SPAN = "<cut>", "."  # the predicted tag of a token that max_length cut off, plain or of a span scheme


@dataclass(frozen=True)
class LabelInspector:
    """The inspector of a task with one label per row."""

    labels: tuple[str, ...]  # (C,) names of the classes
    column: Literal["label"] = "label"

    def decode(self, values: IntArray, offsets: IntArray) -> pa.Array:
        """Return the labels (B,) of predicted ids."""
        return pa.array(self.labels, pa.string()).take(pa.array(values))

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, object]:
        """Return the `calibration` of the predictions."""
        assert predictions.probability is not None
        return {"calibration": calibration(predictions.probability, predictions.ids == target_ids(split).numpy())}

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.tsv`: gold and predicted label, probability and place of each row, in the split's order.

        Also write `errors.txt`, a listing of the errors (`LabelErrors`).
        """
        assert predictions.probability is not None
        columns = (target_ids(split).tolist(), predictions.ids.tolist(), predictions.probability.tolist())
        labels = escaped(pa.array(self.labels, pa.string())).to_pylist()
        lines = ["gold\tpredicted\tscore\tplace"]
        for row, (gold, predicted, score) in enumerate(zip(*columns, strict=True)):
            lines.append(f"{labels[gold]}\t{labels[predicted]}\t{score:.6f}\t{place(table, row)}")
        write_text(folder / f"{name}.tsv", "\n".join(lines) + "\n")
        gold_ids = target_ids(split).numpy()
        errors = LabelErrors(self.labels, gold_ids, predictions.ids, predictions.probability, table)
        write_text(folder / "errors.txt", errors.text())


@dataclass(frozen=True)
class TagInspector:
    """The inspector of a task with one tag per token."""

    own: OwnTags
    scheme: Scheme | None  # scheme of the data set's tags; None: plain tags
    column: Literal["tags"] = "tags"

    def decode(self, values: IntArray, offsets: IntArray) -> pa.Array:
        """Convert predicted ids of learned tags (N,) to the data set's tags (N,); rows start at `offsets` (B+1,)."""
        return pa.array(self.own.tags, pa.string()).take(pa.array(self.own.ids(values, offsets)))

    def spans(self, tags: pa.ListArray) -> list[list[tuple[int, int, str]]] | None:
        """Return the spans of each row (B,), see `runner.interfaces.FindsSpans`."""
        if self.scheme is None:
            return None
        parsed, offsets = SpanTags.of(self.own.tags, self.scheme), offsets_of(tags)
        ids = pc.index_in(tags.flatten(), value_set=pa.array(self.own.tags, pa.string())).to_numpy()
        firsts, ends, types = spans(ids, offsets, parsed, self.scheme, headline_mode(self.scheme))
        rows = np.searchsorted(offsets, firsts, side="right") - 1
        found: list[list[tuple[int, int, str]]] = [[] for _ in range(len(tags))]
        for row, first, end, kind in zip(rows.tolist(), firsts, ends, types.tolist(), strict=True):
            found[row].append((int(first - offsets[row]), int(end - offsets[row]), parsed.types[kind]))
        return found

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, object]:
        """Return the `calibration` of all tokens that have a prediction.

        Tags that encode spans also have `calibration_in_spans` (of tokens predicted to be inside a span), `errors` and
        `type_confusion`.
        """
        assert predictions.probability is not None
        made = predictions.ids != NO_PREDICTION
        correct = predictions.ids == target_ids(split).numpy()
        tables: dict[str, object] = {"calibration": calibration(predictions.probability[made], correct[made])}
        if self.scheme is None:
            return tables
        _, predicted = self._own_ids(predictions, split)
        inside = made & (SpanTags.of(self.own.tags, self.scheme).prefix[predicted] != OUTSIDE)
        tables["calibration_in_spans"] = calibration(predictions.probability[inside], correct[inside])
        return tables | self._compare(predictions, split, self.scheme).tables()

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write `NAME.conll`: all columns of the data, gold and predicted tag, and a blank line after each sentence.

        The predicted tag of a token that max_length cut off is `.` for span tags, which is no tag in conlleval, and
        `<cut>` for plain ones. For span tags also write `errors.txt`, which leaves out tokens whose tag is ignored.

        Raises:
            HydromelError: a file cannot be written, or the data file has changed since the run read it.
        """
        texts, separator = token_texts(corpus, table)
        targets, predicted = whole_targets(split), whole_values(torch.from_numpy(predictions.ids), split)
        counts, offsets = targets.on_host() != IGNORED, targets.rows.host_offsets
        ids, scored = scored_predictions(torch.from_numpy(predictions.ids), split)
        counted = replace(predictions, values=ids.numpy())
        gold, own = np.zeros(len(counts), dtype=np.int64), self.own.ids(predicted.numpy(), offsets).copy()
        # Figures convert tags without the ignored ones, whose neighbours then stand side by side.
        gold[counts], own[counts] = self._own_ids(counted, scored)
        names = pa.array(self.own.tags, pa.string())
        ignored = pc.fill_null(array(table["tags"]).flatten(), str(IGNORED))
        golds = pc.if_else(pa.array(counts), names.take(pa.array(gold)), ignored)
        cut = CUT_SPAN if self.scheme else CUT
        said = pc.if_else(pa.array(own == NO_PREDICTION), cut, names.take(pa.array(np.maximum(own, 0))))
        lines = pc.binary_join_element_wise(texts.flatten(), escaped(golds), escaped(said), separator)
        sentences = pc.binary_join(list_column(lines, offsets), "\n").to_pylist()
        write_text(folder / f"{name}.conll", "\n\n".join(sentences) + "\n\n")
        if self.scheme is not None:
            scored_offsets = target_rows(scored).host_offsets
            tokens = list_column(array(table["tokens"]).flatten().filter(pa.array(counts)), scored_offsets)
            table = table.set_column(table.column_names.index("tokens"), "tokens", tokens)
            listing = Listing(self._compare(counted, scored, self.scheme), scored_offsets, table).text()
            write_text(folder / "errors.txt", printable(listing))

    def _own_ids(self, predictions: Predictions, split: Batch) -> tuple[IntArray, IntArray]:
        """Return gold (N,) and predicted (N,) ids of the data set's tags."""
        offsets = target_rows(split).host_offsets
        return self.own.ids(target_ids(split).numpy(), offsets), self.own.ids(predictions.ids, offsets)

    def _compare(self, predictions: Predictions, split: Batch, scheme: Scheme) -> Comparison:
        """Return gold and predicted spans, in the mode of the headline figures."""
        tags, offsets, mode = SpanTags.of(self.own.tags, scheme), target_rows(split).host_offsets, headline_mode(scheme)
        gold, predicted = (spans(ids, offsets, tags, scheme, mode) for ids in self._own_ids(predictions, split))
        return Comparison(gold, predicted, tags.names)


def token_texts(corpus: Corpus, table: pa.Table) -> tuple[pa.ListArray, str]:
    """Return the columns of each token as one string, and their separator.

    For column files these are the original lines. For other data they are all columns with one string per token,
    `escaped` and separated by tabs.
    """
    if isinstance(corpus, TokenLines):
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


@dataclass(frozen=True)
class Listing:
    """A listing of the span errors of a split."""

    compared: Comparison
    offsets: IntArray  # (B+1,) start of each row among the tokens, and their number
    table: pa.Table  # the split as read from the corpus, in the same order, with these tokens

    def text(self) -> str:
        """Return the text: a table by type, then up to `SHOWN` cases of each kind of error."""
        right = np.count_nonzero(self.compared.matches.kind == RIGHT)
        gold, predicted = len(self.compared.gold[0]), len(self.compared.predicted[0])
        parts = [f"{gold:,} gold spans, {predicted:,} predicted, {right:,} right", "", *self._table()]
        for kind, name in enumerate(KINDS):
            if kind != RIGHT:
                parts += self._cases(kind, name)
        return "\n".join(parts) + "\n"

    def _table(self) -> list[str]:
        """Return the lines of a table by type: precision, recall and F1 (percent), and the counts of each kind."""
        types = self.compared.types
        per_type = self.compared.per_type()
        right = per_type["right"].to_numpy()
        sides = (self.compared.predicted, self.compared.gold)
        predicted, gold = (np.bincount(side[2], minlength=len(types)) for side in sides)
        width = max(map(len, types), default=0)
        columns = ("precision", "recall", "F1", "predicted", "gold", *KINDS)
        lines = [" " * width + "".join(f"{name:>11}" for name in columns)]
        scores, kinds = by_name(types, right, predicted, gold).to_pylist(), per_type.select(KINDS).to_pylist()
        for number, (row, counts_by_kind) in enumerate(zip(scores, kinds, strict=True)):
            shares = "".join(f"{row[key]:11.2f}" for key in ("precision", "recall", "f1"))
            counts = (predicted[number], gold[number], *counts_by_kind.values())
            lines.append(row["name"].ljust(width) + shares + "".join(f"{count:11,}" for count in counts))
        return lines

    def _cases(self, kind: int, name: str) -> list[str]:
        cases = np.flatnonzero(self.compared.matches.kind == kind)
        shown = cases[:: -(-len(cases) // SHOWN) or 1]
        how_many = f", {len(shown)} of them shown" if len(shown) < len(cases) else ""
        return ["", f"== {name}: {len(cases):,}{how_many} ({MEANING[name]}) ==", *map(self._case, shown.tolist())]

    def _case(self, number: int) -> str:
        matches = self.compared.matches
        gold, predicted = int(matches.gold[number]), int(matches.predicted[number])
        sides: list[tuple[str, int, int, str]] = []  # gold or predicted, start, end (exclusive), type
        found = (("gold", self.compared.gold, gold), ("predicted", self.compared.predicted, predicted))
        for name, (starts, ends, types), span in found:
            if span >= 0:
                sides.append((name, int(starts[span]), int(ends[span]), self.compared.types[types[span]]))
        start, end = min(side[1] for side in sides), max(side[2] for side in sides)
        row = int(np.searchsorted(self.offsets, start, side="right")) - 1
        row_start = int(self.offsets[row])
        words = self.table["tokens"][row].as_py()
        lines = [f"\n{place(self.table, row)}"]
        for name, first, stop, kind in sides:
            lines.append(f"  {name:9}  {kind}: {' '.join(words[first - row_start : stop - row_start])}")
        return "\n".join([*lines, f"  {'text':9}  {in_context(words, start - row_start, end - row_start)}"])


def in_context(words: Sequence[str], start: int, end: int) -> str:
    """Return `words[start:end]` in guillemets, with up to `AROUND` words of context on either side.

    Guillemets are used because brackets are common tokens themselves.
    """
    before, after = words[max(0, start - AROUND) : start], words[end : end + AROUND]
    cut_before, cut_after = ["..."] * (start > AROUND), ["..."] * (end + AROUND < len(words))
    return " ".join([*cut_before, *before, f"«{' '.join(words[start:end])}»", *after, *cut_after])
