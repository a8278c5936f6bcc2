"""A text as a language model reads it: its tokens, their positions, and the ids of the model's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.batching.plan import cut
from runner.batching.stream import Stream
from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.data.numericalize import TARGET
from runner.inference.generation.language_model import Text
from runner.inference.trained import TrainedModel
from runner.ragged.batch import Batch
from runner.text.arrow import lengths_of
from runner.text.bpe import bytes_of, characters_in, pieces_of
from runner.text.tokenizers import Tokenizer, tokenizer_of

_ROWS = 32  # lines per batch, for a model that reads each line by itself


@dataclass(frozen=True)
class Reading:
    """A text as N tokens, including one for the end of each line."""

    text: str
    ends: IntArray  # (N,) end of each token in `text`: the position after its last character
    batch: Batch  # N + 1 positions: `<eos>`, which starts a text, and the tokens
    by_line: bool  # each line is a separate row, without context
    unknown: int  # number of tokens that the model does not know
    characters: bool  # tokens are characters, not words between white space

    @property
    def tokens(self) -> list[str]:
        """(N,) the tokens, each with the spaces before it, so that joined they are the text."""
        starts = np.concatenate(([0], self.ends[:-1]))
        return [self.text[start:end] for start, end in zip(starts.tolist(), self.ends.tolist(), strict=True)]

    def windows(self, width: int) -> Iterator[Batch]:
        """Yield the text in order: consecutive windows of `width` tokens, or batches of lines if `by_line`."""
        if self.by_line:
            for rows in cut(np.arange(self.batch.rows.n_rows), _ROWS):
                yield self.batch.select(rows)
            return
        stream = Stream(
            name="inspect", batch_size=1, window=width, half_rate=0.0, spread=0.0, evaluation_streams=1, layout="packed"
        )
        yield from stream.evaluation_batches(self.batch, 1)


def read(trained: TrainedModel, text: str, name: str) -> Reading:
    """Read a text, whose lines end with a line feed, in the run's own tokens: characters, or words between white space.

    Raises:
        HydromelError: the text has no token, or none that the model knows, or the model reads more than tokens.
    """
    for feature_name, feature in trained.features.items():
        if feature.column != "tokens":
            raise HydromelError(
                f"this run's feature {feature_name} reads the column '{feature.column}', which a text lacks; "
                "use a run whose features read tokens only"
            )
    characters = of_characters(trained)
    if characters:
        tokens, ends = [list(line) for line in text.split("\n")], np.arange(1, len(text) + 1)
    else:
        tokens, ends = _words(text, tokenizer_of(trained.corpus))
    if not any(tokens):
        raise HydromelError(f"{name}: the text has no tokens; give at least one")
    table = pa.table({"tokens": pa.array(tokens, pa.list_(pa.string()))})
    if trained.vocabs[TARGET].tokenizer is not None:
        raise HydromelError(
            "this run reads the pieces of a pretrained model's tokenizer; use a run of words, characters or pieces by "
            "features=bpe"
        )
    if (merges := trained.vocabs[TARGET].merges) is not None:
        ends = _piece_ends(tokens, ends, merges)
    ids = trained.ids_of(table)
    columns = [(trained.vocabs[name], feature.values.numpy()) for name, feature in ids.items()]
    known = np.any([(values != vocab.unk) & (values < vocab.known) for vocab, values in columns], axis=0)
    unknown, n_tokens = int((~known).sum()), len(known)
    if unknown == n_tokens:
        unit = "characters" if characters else "words"
        raise HydromelError(f"{name}: all of its {n_tokens:,} {unit} are unknown to the run; use another text")
    batch = trained.task.encode(ids, table, trained.vocabs)
    return Reading(text, ends, batch, batch.rows.n_rows == len(tokens) > 1, unknown, characters)


def joined(rows: Sequence[Sequence[str]], characters: bool) -> str:
    """Join the rows of a data set into a text, which `read` splits again."""
    return "\n".join(("" if characters else " ").join(row) for row in rows)


def of_characters(trained: TrainedModel) -> bool:
    """Return True if the run's tokens are characters."""
    return Text.of(trained.corpus, trained.vocabs[TARGET]).unit == "char"


def _words(text: str, tokenizer: Tokenizer) -> tuple[list[list[str]], IntArray]:
    """Split a text into each line's words, and the end of each word, line ends included."""
    lines = text.split("\n")
    spans = tokenizer.spans(pa.array(lines, pa.string()))
    starts_of_lines = np.cumsum([0, *(len(line) + 1 for line in lines)])
    ends = spans.characters()[1]
    of_words = ends.flatten().to_numpy() + np.repeat(starts_of_lines[:-1], lengths_of(ends))
    return spans.tokens().to_pylist(), np.sort(np.concatenate((of_words, starts_of_lines[1:-1])))


def _piece_ends(rows: list[list[str]], ends: IntArray, merges: tuple[str, ...]) -> IntArray:
    """Return the end of each piece of a word (`runner.text.bpe`), from the ends of words and lines.

    A character of several bytes belongs to the piece in which it starts.
    """
    words = [word for row in rows for word in row]
    counts, pieces = pieces_of(pa.array(words, pa.string()), merges)
    # The pieces' lengths, summed over the text, differ from text positions by a constant within each word; the end of
    # its last piece, which is the end of the word, gives the constant.
    written = np.cumsum([characters_in(bytes_of(piece)) for piece in pieces.to_pylist()])
    last_piece = np.cumsum(counts) - 1
    is_word = np.ones(len(ends), dtype=np.bool_)
    is_word[np.cumsum([len(row) + 1 for row in rows])[:-1] - 1] = False
    piece_ends = np.empty(len(pieces) + len(rows) - 1, dtype=np.int64)
    repeats = np.where(is_word, 0, 1)
    repeats[is_word] = counts
    of_word = np.repeat(is_word, repeats)
    piece_ends[~of_word] = ends[~is_word]
    piece_ends[of_word] = np.maximum(np.repeat(ends[is_word] - written[last_piece], counts) + written, 0)
    return piece_ends
