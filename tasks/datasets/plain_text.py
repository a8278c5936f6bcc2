"""Plain text for language models: one example per line."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from runner.text.arrow import example_table, lengths_of, split_characters
from runner.text.tokenizers import split_words
from tasks.datasets.base import LocalCorpus
from tasks.datasets.files import TextFile


@dataclass(kw_only=True)
class PlainText(LocalCorpus):
    """A reader of lines of text. Line ends are not tokens here: task=lm adds them as `<eos>`.

    Args:
        unit: `word`: tokens are separated by white space; `char`: every character, including white space, is a token.
        blank_lines: `keep` lines without tokens as examples of length 0, or `drop` them.
    """

    unit: Literal["word", "char"]
    blank_lines: Literal["keep", "drop"]

    def parse(self, file: TextFile, split: str) -> pa.Table:
        tokens = split_words(file.lines) if self.unit == "word" else split_characters(file.lines)
        table = example_table({"tokens": tokens}, file.numbers, file.path)
        return table if self.blank_lines == "keep" else table.filter(pa.array(lengths_of(tokens) > 0))
