"""`LABEL text`: one example per line, with the label before the first white space, or labels marked as in fastText."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.text.arrow import example_table, is_empty, list_column, mask_of, offsets_of, refuse
from runner.text.formats.lines import Lines
from runner.text.tokenizers import WHITE_SPACE, split_words
from tasks.datasets.base import LocalCorpus, RawText
from tasks.datasets.files import TextFile
from tasks.datasets.text_blocks import BlockEnd, last_line

MARK = "__label__"  # prefix of labels in fastText's files


@dataclass(kw_only=True)
class Labelled(RawText, LocalCorpus):
    """A reader of text preceded by a label. A label without text is an example of length 0.

    If some line starts with `__label__`, the file is one of fastText: every token with that prefix, anywhere on a line,
    is a label, and none is a word. A line may then have several labels, or none.

    Args:
        label_part: `whole`: the label as it is. For labels such as TREC's `NUM:dist`, `coarse`: the part before the
            colon (NUM); `fine`: the complete label, since subtype names are only unique within their type.
    """

    label_part: Literal["whole", "coarse", "fine"]

    @property
    def block_end(self) -> BlockEnd:
        return last_line

    def parse(self, file: TextFile, split: str) -> pa.Table:
        file = file.body()
        if mask_of(pc.starts_with(file.lines, MARK)).any():
            return self._marked(file)
        # The appended space gives a label without text an empty text, and adds no token to other texts.
        padded = pc.binary_join_element_wise(file.lines, "", " ")
        parts = pc.split_pattern_regex(padded, f"[{WHITE_SPACE}]", max_splits=1)
        label, text = pc.list_element(parts, 0), pc.list_element(parts, 1)
        refuse(
            is_empty(label),
            lambda row: f"{file.at(file.numbers[row])}: no label at the start of the line; expected LABEL text",
        )
        label = self._part(label, lambda row: file.at(file.numbers[row]))
        return example_table({"tokens": self.split(text), "label": label}, file.numbers, file.path)

    def text_format(self) -> Lines:
        """Return the format of text given to models trained on this data set, which may have labels of fastText."""
        return Lines(self.tokenizer, MARK)

    def _marked(self, file: TextFile) -> pa.Table:
        lists = split_words(file.lines)
        tokens, offsets = lists.flatten(), offsets_of(lists)
        is_label = mask_of(pc.starts_with(tokens, MARK))
        row = np.repeat(np.arange(len(lists)), np.diff(offsets))[is_label]
        columns = {}
        for name, kept in (("tokens", ~is_label), ("labels", is_label)):
            before = np.concatenate(([0], np.cumsum(kept)))
            columns[name] = list_column(tokens.filter(pa.array(kept)), before[offsets])
        labels = self._part(columns["labels"].flatten(), lambda place: file.at(file.numbers[row[place]]))
        columns["labels"] = list_column(labels, offsets_of(columns["labels"]))
        columns["tokens"] = self.split(pc.binary_join(columns["tokens"], " "))
        return example_table(columns, file.numbers, file.path)

    def _part(self, labels: pa.Array, at: Callable[[int], str]) -> pa.Array:
        """Return the configured part of labels (N,), the place of which is `at(index)`."""
        if self.label_part != "whole":
            refuse(
                ~mask_of(pc.match_substring_regex(labels, "^[^:]+:.")),
                lambda place: (
                    f"{at(place)}: label '{labels[place].as_py()}' is not COARSE:fine, "
                    f"which dataset.label_part={self.label_part} needs"
                ),
            )
        return (
            pc.list_element(pc.split_pattern(labels, ":", max_splits=1), 0) if self.label_part == "coarse" else labels
        )
