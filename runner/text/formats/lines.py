"""Lines of tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.errors import HydromelError
from runner.text.arrow import lengths_of, split_on_spaces
from runner.text.formats.base import Parsed, PassagePredictions, format_numbers, join_lists, replace_lines
from runner.text.formats.reader import Passage


class Lines:
    """A format with one row per line and tokens separated by spaces.

    The output has one line per row: the label, or the tags separated by spaces; then, if probabilities are written, a
    tab and the probabilities. Blank lines stay blank.
    """

    def may_end(self, line: str) -> bool:
        return True

    def check(self, columns: Collection[str], predicted: Literal["label", "tags"]) -> None:
        for column in columns:
            if column != "tokens":
                raise HydromelError(f"this run also needs the column '{column}'; use --format columns or jsonl")

    def parse(self, passage: Passage, columns: Collection[str]) -> Parsed:
        tokens = split_on_spaces(pa.array(passage.lines, pa.string()))
        places = np.flatnonzero(lengths_of(tokens))
        return Parsed(pa.table({"tokens": tokens.take(pa.array(places))}), places)

    def write(self, passage: Passage, parsed: Parsed, predictions: PassagePredictions) -> list[str]:
        texts = join_lists(predictions.strings)
        if predictions.probability is not None:
            texts = pc.binary_join_element_wise(texts, join_lists(format_numbers(predictions.probability)), "\t")
        return replace_lines([""] * len(passage.lines), parsed.places, texts)
