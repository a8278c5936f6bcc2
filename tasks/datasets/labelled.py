"""`LABEL text`: one example per line, with the label before the first space."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from runner.text.arrow import example_table, is_empty, mask_of, refuse, split_on_spaces
from tasks.datasets.base import LocalCorpus
from tasks.datasets.files import TextFile


@dataclass(kw_only=True)
class Labelled(LocalCorpus):
    """A reader of text preceded by a label. A label without text is an example of length 0.

    Args:
        label_part: `whole`: the label as it is. For labels such as TREC's `NUM:dist`, `coarse`: the part before the
            colon (NUM); `fine`: the complete label, since subtype names are only unique within their type.
    """

    label_part: Literal["whole", "coarse", "fine"]

    def parse(self, file: TextFile, split: str) -> pa.Table:
        file = file.body()
        # The appended space gives a label without text an empty text, and adds no token to other texts.
        parts = pc.split_pattern(pc.binary_join_element_wise(file.lines, "", " "), " ", max_splits=1)
        label, text = pc.list_element(parts, 0), pc.list_element(parts, 1)
        refuse(
            is_empty(label), lambda row: f"{file.at(row + 1)}: no label at the start of the line; expected LABEL text"
        )
        if self.label_part != "whole":
            refuse(
                ~mask_of(pc.match_substring_regex(label, "^[^:]+:.")),
                lambda row: (
                    f"{file.at(row + 1)}: label '{label[row].as_py()}' is not COARSE:fine, "
                    f"which dataset.label_part={self.label_part} needs"
                ),
            )
        if self.label_part == "coarse":
            label = pc.list_element(pc.split_pattern(label, ":", max_splits=1), 0)
        return example_table({"tokens": split_on_spaces(text), "label": label}, file.numbers, file.path)
