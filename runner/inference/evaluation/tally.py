"""How likely a text is to a language model, in units that can be compared.

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
    """Sums over some text. Of texts one after another they add up; a line's end is a token, a word and a character.

    Attributes:
        nats: -log P.
        tokens: that were predicted, each once.
        unknown: those among them that were read as `<unk>`.
        words: between spaces, whatever the tokens are.
        characters: of these words, with one space between.
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
        """`log_p` (nats) and the counts; `nll` (nats a token), `bits_per_token`, `perplexity`; `nats_per_word`,
        `word_perplexity`; `bits_per_character`.
        """
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
    """Of each line, its end included: (B,) words and (B,) characters."""

    words: IntArray
    characters: IntArray

    @classmethod
    def of(cls, tokens: pa.ListArray, unit: Unit) -> Sizes:
        """Of lines of tokens that are words, or characters, spaces among them."""
        lines = pc.binary_join(tokens, "" if unit == "char" else " ")
        words = lengths_of(tokens) if unit == "word" else _whole(pc.count_substring_regex(lines, "[^ ]+"))
        return cls(words + 1, _whole(pc.utf8_length(lines)) + 1)


def _whole(numbers: pa.Array) -> IntArray:
    return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.int64)


def perplexity(nll: float) -> float:
    """Of nats a token (or word): exp(nll), infinite where that is more than a float can hold."""
    return math.exp(nll) if nll < 700 else math.inf  # exp(710) overflows
