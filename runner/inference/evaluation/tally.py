"""The likelihood of a text under a language model, per token, word and character.

Shapes: B rows (lines) of a text.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.inference.generation.language_model import Unit
from runner.text.arrow import lengths_of


@dataclass(frozen=True)
class Tally:
    """Sums over a text; the tallies of consecutive texts can be added. A line's end is a token, word and character."""

    nats: float = 0.0  # -log P of the text
    tokens: int = 0  # number of predicted tokens
    unknown: int = 0  # number of tokens that were read as `<unk>`
    words: int = 0  # number of words between spaces, whatever the tokens are
    characters: int = 0  # number of characters of these words, with a single space between words

    def __add__(self, other: Tally) -> Tally:
        return Tally(*map(operator.add, vars(self).values(), vars(other).values()))

    def figures(self) -> dict[str, float | int]:
        """Return `log_p` (nats), the counts, and the metrics per token (`nll` in nats), word and character."""
        nll, per_word = self.nats / self.tokens, self.nats / self.words
        return {
            "log_p": -self.nats,
            "tokens": self.tokens,
            "unknown": self.unknown,
            "words": self.words,
            "characters": self.characters,
            "nll": nll,
            "bits_per_token": nll / math.log(2),
            "perplexity": perplexity(nll),
            "nats_per_word": per_word,
            "word_perplexity": perplexity(per_word),
            "bits_per_character": self.nats / self.characters / math.log(2),
        }


def line_sizes(tokens: pa.ListArray, unit: Unit) -> tuple[IntArray, IntArray]:
    """Return the number of words (B,) and characters (B,) of each line of tokens, including its end."""
    lines = pc.binary_join(tokens, "" if unit == "char" else " ")
    words = lengths_of(tokens) if unit == "word" else np.asarray(pc.count_substring_regex(lines, "[^ ]+"))
    return words.astype(np.int64) + 1, np.asarray(pc.utf8_length(lines), dtype=np.int64) + 1


def perplexity(nll: float) -> float:
    """Return exp(nll), for nats per token or word, or infinity where that exceeds the range of a float."""
    return math.exp(nll) if nll < 700 else math.inf  # exp(710) overflows
