"""Stanford Sentiment Treebank: one bracketed tree a line, with a label on every phrase."""

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.arrow import example_table, list_column
from tasks.datasets.base import LocalCorpus
from tasks.datasets.files import TextFile

PIECE = re.compile(r"\((\S+) |(\))|([^() ]+)")  # the beginning of a phrase with its label, its end, or a word
_BINARY = {"0": "0", "1": "0", "2": None, "3": "1", "4": "1"}  # neutral is none of the two


@dataclass
class Phrase:
    label: str
    start: int  # place of its first word in the sentence
    end: int


@dataclass(kw_only=True)
class Trees(LocalCorpus):
    """Labelled phrases or sentences.

    Args:
        phrases: in which splits every phrase is an example, outer ones first: `none` (whole sentences alone),
            `train` (as Socher et al. 2013 do) or `all`.
        labels: `fine` as they stand, 0 to 4; or `binary`: 0 and 1 for below and above the neutral 2, whose phrases and
            sentences are left out.
    """

    phrases: Literal["none", "train", "all"]
    labels: Literal["fine", "binary"]

    def parse(self, file: TextFile, split: str) -> pa.Table:
        file = file.body()
        wanted = None if self.phrases == "all" or self.phrases == split else 1
        tokens: list[str] = []
        labels: list[str] = []
        lengths: list[int] = []
        lines: list[int] = []
        for line, text in enumerate(file.lines.to_pylist(), start=1):
            words, phrases = parse_tree(text, file.at(line))
            for phrase in phrases[:wanted]:
                label = phrase.label if self.labels == "fine" else binary(phrase.label, file.at(line))
                if label is None:
                    continue
                tokens += words[phrase.start : phrase.end]
                labels.append(label)
                lengths.append(phrase.end - phrase.start)
                lines.append(line)
        offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        columns = {
            "tokens": list_column(pa.array(tokens, pa.string()), offsets),
            "label": pa.array(labels, pa.string()),
        }
        return example_table(columns, np.array(lines, dtype=np.int64), file.path)


def binary(label: str, at: str) -> str | None:
    """0 (negative), 1 (positive) or None (neutral), of a label from 0 to 4.

    Raises:
        HydromelError: another label.
    """
    if label not in _BINARY:
        raise HydromelError(f"{at}: label '{label}'; dataset.labels=binary takes labels from 0 to 4")
    return _BINARY[label]


def parse_tree(text: str, at: str) -> tuple[list[str], list[Phrase]]:
    """The words of a tree such as `(3 (2 Good) (2 film))`, and its phrases from the outside in, left to right.

    Raises:
        HydromelError: brackets that do not match, or anything outside the one tree of the line.
    """
    words: list[str] = []
    phrases: list[Phrase] = []
    still_open: list[Phrase] = []
    for piece in PIECE.finditer(text):
        label, close, word = piece.groups()
        if label is None and not still_open:
            raise HydromelError(f"{at}: '{piece.group()}' stands outside of any tree")
        if word is not None:
            words.append(word)
        elif close is not None:
            still_open.pop().end = len(words)
        else:
            if phrases and not still_open:
                raise HydromelError(f"{at}: a second tree begins; each line must hold one tree")
            still_open.append(Phrase(label, len(words), len(words)))
            phrases.append(still_open[-1])
    if still_open or not phrases:
        raise HydromelError(f"{at}: {len(still_open)} brackets are not closed; each line must hold one tree")
    return words, phrases
