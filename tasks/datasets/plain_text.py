"""Plain text for language models: one example per line."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.arrow import example_table, lengths_of
from runner.text.tokenizers import WHITESPACE, CharacterTokenizer
from tasks.datasets.base import LocalCorpus, RawText
from tasks.datasets.files import TextFile
from tasks.datasets.text_blocks import BlockEnd, last_line


@dataclass(kw_only=True)
class PlainText(RawText, LocalCorpus):
    """A reader of lines of text. Line ends are not tokens here: task=lm adds them as `<eos>`.

    Args:
        unit: `word`: the tokenizer makes the tokens; `char`: every character, including white space, is a token.
        blank_lines: `keep` lines without tokens as examples of length 0, or `drop` them.
    """

    unit: Literal["word", "char"]
    blank_lines: Literal["keep", "drop"]

    def __post_init__(self) -> None:
        if isinstance(self.tokenizer, CharacterTokenizer):
            self.unit = "char"
        elif self.unit == "char" and self.tokenizer == WHITESPACE:
            self.tokenizer = CharacterTokenizer()
        elif self.unit == "char":
            raise HydromelError("dataset.unit=char has its own tokenizer; use dataset.unit=word with tokenizer=...")

    @property
    def block_end(self) -> BlockEnd:
        return last_line

    def parse(self, file: TextFile, split: str) -> pa.Table:
        tokens = self.split(file.lines)
        table = example_table({"tokens": tokens}, file.numbers, file.path)
        return table if self.blank_lines == "keep" else table.filter(pa.array(lengths_of(tokens) > 0))
