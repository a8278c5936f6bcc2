"""The Stanford Sentiment Treebank: one bracketed tree per line, with a label on every phrase."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.arrow import example_table
from runner.text.tokenizers import WHITE_SPACE
from tasks.datasets.base import LocalCorpus
from tasks.datasets.files import TextFile

PIECE = re.compile(
    rf"\((\S+) |(\))|([^(){WHITE_SPACE}]+)"
)  # start of a phrase with its label, end of a phrase, or a word
MOST_LEVELS = 1000  # most levels of nested phrases; the deepest tree of the published data has 30
BINARY = {"0": "0", "1": "0", "2": None, "3": "1", "4": "1"}  # None: neutral


@dataclass
class Phrase:
    """A labelled phrase: the words from `start` to `end` (exclusive) of its sentence."""

    label: str
    start: int
    end: int


@dataclass(kw_only=True)
class Trees(LocalCorpus):
    """A reader of labelled phrases or sentences.

    Args:
        phrases: splits in which every phrase is an example, outer phrases first: `none` (only whole sentences),
            `train` (as in Socher et al. 2013) or `all`.
        labels: `fine`: the labels 0 to 4; `binary`: 0 for labels below 2 and 1 for labels above, without the neutral
            phrases and sentences (label 2).
    """

    phrases: Literal["none", "train", "all"]
    labels: Literal["fine", "binary"]

    def parse(self, file: TextFile, split: str) -> pa.Table:
        file = file.body()
        n_phrases = None if self.phrases in ("all", split) else 1  # the first phrase is the whole sentence
        tokens: list[list[str]] = []
        labels: list[str] = []
        lines: list[int] = []
        for line, text in enumerate(file.lines.to_pylist(), start=1):
            words, phrases = parse_tree(text, file.at(line))
            for phrase in phrases[:n_phrases]:
                if self.labels == "binary" and phrase.label not in BINARY:
                    raise HydromelError(
                        f"{file.at(line)}: label '{phrase.label}'; dataset.labels=binary needs labels from 0 to 4"
                    )
                label = phrase.label if self.labels == "fine" else BINARY[phrase.label]
                if label is not None:
                    tokens.append(words[phrase.start : phrase.end])
                    labels.append(label)
                    lines.append(line)
        columns = {"tokens": pa.array(tokens, pa.list_(pa.string())), "label": pa.array(labels, pa.string())}
        return example_table(columns, np.array(lines, dtype=np.int64), file.path)


def parse_tree(text: str, at: str) -> tuple[list[str], list[Phrase]]:
    """Return the words of a tree such as `(3 (2 Good) (2 film))`, and its phrases in pre-order.

    Raises:
        HydromelError: unbalanced brackets, or anything outside the line's only tree.
    """
    words: list[str] = []
    phrases: list[Phrase] = []
    still_open: list[Phrase] = []
    for piece in PIECE.finditer(text):
        label, close, word = piece.groups()
        if label is None and not still_open:
            raise HydromelError(f"{at}: '{piece.group()}' is outside the tree; each line must hold one tree")
        if word is not None:
            words.append(word)
        elif close is not None:
            still_open.pop().end = len(words)
        else:
            if phrases and not still_open:
                raise HydromelError(f"{at}: a second tree starts; each line must hold one tree")
            if len(still_open) == MOST_LEVELS:  # every phrase holds its words again
                raise HydromelError(f"{at}: nested more than {MOST_LEVELS:,} levels deep, the most allowed")
            still_open.append(Phrase(label, len(words), len(words)))
            phrases.append(still_open[-1])
    if still_open or not phrases:
        problem = f"unclosed brackets: {len(still_open)}" if still_open else "no tree"
        raise HydromelError(f"{at}: {problem}; each line must hold one tree")
    return words, phrases
