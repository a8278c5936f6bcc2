"""A data format: one sentence per line, each token written as word/TAG."""

from dataclasses import dataclass

import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.arrow import example_table
from tasks.datasets.base import LocalCorpus
from tasks.datasets.files import TextFile


@dataclass(kw_only=True)
class SlashTags(LocalCorpus):
    """Sentences such as `the/DET dog/NOUN barks/VERB`. LocalCorpus finds the files and cuts missing splits.

    Args:
        slash: the character between a word and its tag.
    """

    slash: str

    def parse(self, file: TextFile, split: str) -> pa.Table:
        """Return a table with the columns `tokens` and `tags`, one row per line of the file."""
        body = file.body()
        tokens: list[list[str]] = []
        tags: list[list[str]] = []
        for number, line in zip(body.numbers, body.lines.to_pylist(), strict=True):
            pairs = [word.rpartition(self.slash) for word in line.split()]
            if wrong := [tag for word, _, tag in pairs if not word]:
                raise HydromelError(f"{file.at(number)}: '{wrong[0]}' has no tag; word{self.slash}TAG was expected")
            tokens.append([word for word, _, _ in pairs])
            tags.append([tag for _, _, tag in pairs])
        strings = pa.list_(pa.string())
        columns = {"tokens": pa.array(tokens, strings), "tags": pa.array(tags, strings)}
        return example_table(columns, body.numbers, file.path)
