"""The conversion between text and the tokens of a language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, Protocol, runtime_checkable

from runner.interfaces import Corpus
from runner.text.bpe import decode_pieces
from runner.text.vocab import EOS, PAD, UNK, Vocab

Unit = Literal["word", "char"]


@runtime_checkable
class HasUnit(Protocol):
    """A corpus that declares the unit of its tokens."""

    unit: Unit


@dataclass(frozen=True)
class Text:
    """A tokenization into words between spaces, or characters; the end of a line is the token `<eos>`."""

    unit: Unit  # `word` or `char`
    merges: tuple[str, ...] | None = None  # merges that split words into pieces (`runner.text.bpe`); None: whole words

    @classmethod
    def of(cls, corpus: Corpus, vocab: Vocab) -> Text:
        """Return the corpus's tokenization, or characters if all strings of the vocabulary are single characters."""
        if isinstance(corpus, HasUnit):
            return cls(corpus.unit, vocab.merges)
        is_characters = all(len(token) == 1 for token in set(vocab.tokens) - {PAD, UNK, EOS})
        return cls("char" if is_characters else "word", vocab.merges)

    def split(self, line: str) -> list[str]:
        """Split a line into tokens."""
        return list(line) if self.unit == "char" else line.split()

    def pieces(self, tokens: Iterable[str], behind: str) -> Iterator[str]:
        """Yield the text of each token, with the space before it; `behind` is the text that precedes them."""
        is_start = not behind or behind[-1].isspace()
        if self.merges is not None:
            yield from _spell(tokens, is_start)
            return
        for token in tokens:
            yield "\n" if token == EOS else token if is_start or self.unit == "char" else f" {token}"
            is_start = token == EOS

    def joined(self, tokens: Iterable[str], behind: str) -> str:
        """Return the text of all tokens."""
        return "".join(self.pieces(tokens, behind))


def _spell(tokens: Iterable[str], is_start: bool) -> Iterator[str]:
    """Yield the text of pieces of words; a word starts with a space, except at the start of a line."""
    for is_end, group in groupby(tokens, key=lambda token: token == EOS):
        if is_end:
            yield from ("\n" for _ in group)
        else:
            for text in decode_pieces(group):
                yield text.removeprefix(" ") if is_start else text
                is_start = is_start and not text
        is_start = is_end
