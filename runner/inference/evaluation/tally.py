"""The likelihood of a text under a language model, per token, word and character.

Shapes: B rows (lines) of a text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import IntArray
from runner.inference.generation.text import Unit
from runner.text.arrow import lengths_of

OF_WORDS = ("words", "characters", "nats_per_word", "word_perplexity", "bits_per_character")


@dataclass(frozen=True)
class Tally:
    """Sums over a text; the tallies of consecutive texts can be added. A line's end is a token, word and character.

    Attributes:
        nats: -log P of the text.
        tokens: number of predicted tokens.
        unknown: number of tokens that were read as `<unk>`.
        words: number of words between spaces, whatever the tokens are.
        characters: number of characters of these words, with a single space between words.
    """

    nats: float = 0.0
    tokens: int = 0
    unknown: int = 0
    words: int = 0
    characters: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.nats + other.nats,
            self.tokens + other.tokens,
            self.unknown + other.unknown,
            self.words + other.words,
            self.characters + other.characters,
        )

    def figures(self) -> dict[str, float | int]:
        """Return `log_p` (nats), the counts, and the metrics per token (`nll` in nats), word and character."""
        return {
            "log_p": -self.nats,
            "tokens": self.tokens,
            "unknown": self.unknown,
            "words": self.words,
            "characters": self.characters,
            "nll": self.nats / self.tokens,
            "bits_per_token": self.nats / self.tokens / math.log(2),
            "perplexity": perplexity(self.nats / self.tokens),
            "nats_per_word": self.nats / self.words,
            "word_perplexity": perplexity(self.nats / self.words),
            "bits_per_character": self.nats / self.characters / math.log(2),
        }


@dataclass(frozen=True)
class Sizes:
    """The number of words (B,) and characters (B,) of each line, including its end."""

    words: IntArray
    characters: IntArray

    @classmethod
    def of(cls, tokens: pa.ListArray, unit: Unit) -> Sizes:
        """Count lines of tokens, which are words, or characters including spaces."""
        lines = pc.binary_join(tokens, "" if unit == "char" else " ")
        words = lengths_of(tokens) if unit == "word" else _as_integers(pc.count_substring_regex(lines, "[^ ]+"))
        return cls(words + 1, _as_integers(pc.utf8_length(lines)) + 1)


def _as_integers(numbers: pa.Array) -> IntArray:
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.int64)


def perplexity(nll: float) -> float:
    """Return exp(nll), for nats per token or word, or infinity where that exceeds the range of a float."""
    return math.exp(nll) if nll < 700 else math.inf  # exp(710) overflows
