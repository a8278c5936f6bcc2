"""How text becomes tokens of a language model, and tokens become text again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, Protocol, runtime_checkable

from runner.interfaces import Corpus
from runner.text.bpe import spelt
from runner.text.vocab import EOS, PAD, UNK, Vocab

Unit = Literal["word", "char"]


@runtime_checkable
class HasUnit(Protocol):
    """A corpus that says what its tokens are."""

    unit: Unit


@dataclass(frozen=True)
class Text:
    """Words between spaces, or characters; the end of a line is the token `<eos>`.

    Attributes:
        unit: which of the two.
        merges: by which words are cut into pieces (`runner.text.bpe`); None where they are whole.
    """

    unit: Unit
    merges: tuple[str, ...] | None = None

    @classmethod
    def of(cls, corpus: Corpus, vocab: Vocab) -> Text:
        """As the corpus says, or else characters where every string of its vocabulary is one."""
        if isinstance(corpus, HasUnit):
            return cls(corpus.unit, vocab.merges)
        characters = all(len(one) == 1 for one in set(vocab.tokens) - {PAD, UNK, EOS})
        return cls("char" if characters else "word", vocab.merges)

    def split(self, line: str) -> list[str]:
        """The tokens of a line."""
        return list(line) if self.unit == "char" else line.split()

    def pieces(self, tokens: Iterable[str], behind: str) -> Iterator[str]:
        """What to write for tokens, one after another.

        Args:
            behind: the text that they follow.
        """
        begins = not behind or behind[-1].isspace()
        if self.merges is not None:
            yield from _of_pieces(tokens, begins)
            return
        for token in tokens:
            yield "\n" if token == EOS else token if begins or self.unit == "char" else f" {token}"
            begins = token == EOS

    def joined(self, tokens: Iterable[str], behind: str) -> str:
        """All of `pieces`."""
        return "".join(self.pieces(tokens, behind))


def _of_pieces(tokens: Iterable[str], begins: bool) -> Iterator[str]:
    """Words of their pieces; each brings the space before it, which the first of a line does without."""
    for is_end, some in groupby(tokens, key=lambda token: token == EOS):
        if is_end:
            yield from ("\n" for _ in some)
        else:
            for written in spelt(some):
                yield written.removeprefix(" ") if begins else written
                begins = begins and not written
        begins = is_end
