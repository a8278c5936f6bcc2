"""How text becomes tokens of a language model, and tokens become text again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from runner.task import Corpus
from runner.vocab import EOS, PAD, UNK, Vocab

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
    """

    unit: Unit

    @classmethod
    def of(cls, corpus: Corpus, vocab: Vocab) -> Text:
        """As the corpus says, or else characters where every string of its vocabulary is one."""
        if isinstance(corpus, HasUnit):
            return cls(corpus.unit)
        return cls("char" if all(len(one) == 1 for one in set(vocab.tokens) - {PAD, UNK, EOS}) else "word")

    def split(self, text: str) -> list[str]:
        """The tokens of a text."""
        lines = [list(line) if self.unit == "char" else line.split() for line in text.split("\n")]
        found = lines[0]
        for line in lines[1:]:
            found += [EOS, *line]
        return found

    def pieces(self, tokens: Iterable[str], behind: str) -> Iterator[str]:
        """What to write for each token, one after another.

        Args:
            behind: the text that they follow.
        """
        begins = not behind or behind[-1].isspace()
        for token in tokens:
            yield "\n" if token == EOS else token if begins or self.unit == "char" else f" {token}"
            begins = token == EOS

    def joined(self, tokens: Iterable[str], behind: str) -> str:
        """All of `pieces`."""
        return "".join(self.pieces(tokens, behind))
