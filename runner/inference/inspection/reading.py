"""A text as a language model reads it: its tokens, where they stand, and the integers that the model is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.batching.plan import cut
from runner.batching.stream import Stream
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.data.numericalize import TARGET, columns_of
from runner.inference.generation.text import Text
from runner.inference.trained import Trained
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.bpe import characters_of, pieces_of
from runner.text.open_vocabulary import admit

_ROWS = 32  # lines at a time, where a model reads each by itself


@dataclass(frozen=True)
class Reading:
    """A text in N tokens; a line's end is one.

    Attributes:
        text: lines end with a line feed.
        ends: (N,) the place behind each token's last character in `text`.
        batch: N + 1 places: `<eos>`, with which a text begins, and then the tokens.
        by_line: each line is a row by itself, of which the model knows nothing in the next one.
        unknown: how many tokens the model does not know.
        characters: tokens are characters, not words between spaces.
    """

    text: str
    ends: IntArray
    batch: Batch
    by_line: bool
    unknown: int
    characters: bool

    @property
    def tokens(self) -> list[str]:
        """(N,) each with the spaces before it, so that together they are the text."""
        starts = np.concatenate(([0], self.ends[:-1]))
        return [self.text[begin:end] for begin, end in zip(starts.tolist(), self.ends.tolist(), strict=True)]

    def windows(self, width: int) -> Iterator[Batch]:
        """The places in the text's order: of one text `width` at a time, a state to be carried on; or some lines."""
        if self.by_line:
            for rows in cut(np.arange(self.batch.rows.n_rows), _ROWS):
                yield self.batch.select(rows)
            return
        one = Stream(
            name="inspect",
            batch_size=1,
            window=width,
            half_rate=0.0,
            spread=0.0,
            evaluation_streams=1,
            layout="packed",
        )
        yield from one.evaluation(self.batch, 1)


def read(trained: Trained, text: str, name: str) -> Reading:
    """The text in the run's own tokens: characters, or words between spaces.

    Args:
        name: of the text, for messages.

    Raises:
        HydromelError: no token, or none that the model knows; a model that reads more than tokens.
    """
    for feature_name, feature in trained.features.items():
        if feature.column != "tokens":
            raise HydromelError(f"this run reads the column '{feature.column}' too ({feature_name}); a text has none")
    characters = of_characters(trained)
    tokens, ends = _characters(text) if characters else _words(text)
    if not any(tokens):
        raise HydromelError(f"{name}: there is no text to look at")
    table = pa.table({"tokens": pa.array(tokens, pa.list_(pa.string()))})
    merges = trained.vocabs[TARGET].merges
    if merges is not None:
        ends = _of_pieces(tokens, ends, merges)
    ids = columns_of(table, trained.features, admit(trained.model, trained.vocabs, trained.features, table))
    unknown = _unknown(trained, ids)
    there = next(iter(ids.values())).rows.n_tokens
    if unknown == there:
        what = "characters" if characters else "words"
        raise HydromelError(f"{name}: the run knows none of its {there:,} {what}")
    batch = trained.task.encode(ids, table, trained.vocabs)
    return Reading(text, ends, batch, batch.rows.n_rows == len(tokens) > 1, unknown, characters)


def joined(rows: Sequence[Sequence[str]], characters: bool) -> str:
    """The text of a data set's rows: what `read` takes apart again."""
    return "\n".join(("" if characters else " ").join(row) for row in rows)


def of_characters(trained: Trained) -> bool:
    """Whether the run's tokens are characters."""
    return Text.of(trained.corpus, trained.vocabs[TARGET]).unit == "char"


def _characters(text: str) -> tuple[list[list[str]], IntArray]:
    """Each line's characters; the places behind each character, line ends among them."""
    return [list(line) for line in text.split("\n")], np.arange(1, len(text) + 1)


def _words(text: str) -> tuple[list[list[str]], IntArray]:
    """The same for words between spaces."""
    rows, ends, at = [], [], 0
    for line in text.split("\n"):
        words, place = [word for word in line.split(" ") if word], at
        for word in words:
            place = text.index(word, place) + len(word)
            ends.append(place)
        rows.append(words)
        at += len(line) + 1
        ends.append(at)
    return rows, np.array(ends[:-1], dtype=np.int64)  # the last line has no end of its own


def _of_pieces(rows: list[list[str]], ends: IntArray, merges: tuple[str, ...]) -> IntArray:
    """The places behind each piece of words (`runner.text.bpe`), from those behind words and line ends.

    A character of several bytes belongs to the piece in which it begins.
    """
    words = [word for row in rows for word in row]
    counts, pieces = pieces_of(pa.array(words, pa.string()), merges)
    written = np.cumsum([characters_of(piece) for piece in pieces.to_pylist()])
    last = np.cumsum(counts) - 1  # of each word
    is_word = np.ones(len(ends), dtype=np.bool_)
    is_word[np.cumsum([len(row) + 1 for row in rows])[:-1] - 1] = False
    found = np.empty(len(pieces) + len(rows) - 1, dtype=np.int64)
    spread = np.where(is_word, 0, 1)
    spread[is_word] = counts
    of_word = np.repeat(is_word, spread)
    found[~of_word] = ends[~is_word]
    found[of_word] = np.maximum(np.repeat(ends[is_word] - written[last], counts) + written, 0)
    return found


def _unknown(trained: Trained, ids: dict[str, Ragged]) -> int:
    """Tokens that no feature knows."""
    known = np.zeros(next(iter(ids.values())).rows.n_tokens, dtype=np.bool_)
    for name, feature in ids.items():
        vocab = trained.vocabs[name]
        found = feature.values.numpy()
        known |= (found != vocab.unk) & (found < vocab.known)
    return int((~known).sum())
