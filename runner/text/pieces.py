"""Vocabularies of pieces of words: how they split text, and the text that a piece stands for.

Words are split by merges that were learned here (`runner.text.bpe`), or by the tokenizer of a pretrained model. In both
cases a piece contains the space before its word, so the concatenated pieces are the text, in which a space stands
between words.

Shapes: B rows of words, N words in all.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.text.arrow import list_column
from runner.text.bpe import BYTES, bytes_of, characters_in, pieces_of
from runner.text.vocab import EOS, Vocab

_CHUNK = 4_096  # lines that a tokenizer splits at once
_SPACE = "▁"  # a space in the pieces of SentencePiece
_BYTE = re.compile("<0x([0-9A-F]{2})>")  # a byte in the pieces of SentencePiece


class Pieces(Protocol):
    """A way to split rows of words into pieces."""

    def cut(self, words: pa.Array, lengths: IntArray) -> tuple[IntArray, pa.Array]:
        """Return the number of pieces of each row, (B,), and the pieces of all rows.

        Args:
            words: (N,) the words of all rows.
            lengths: (B,) the number of words of each row.

        Raises:
            HydromelError: a word that is empty or contains a space.
        """

    def bytes_of(self, piece: str) -> bytes:
        """Return the text of a piece in UTF-8; a character of several bytes may be spread over pieces."""


@dataclass(frozen=True)
class MergedPieces:
    """Pieces by byte pair encoding of each word (`runner.text.bpe`)."""

    merges: tuple[str, ...]

    def cut(self, words: pa.Array, lengths: IntArray) -> tuple[IntArray, pa.Array]:
        counts, pieces = pieces_of(words, self.merges)
        ends = np.concatenate(([0], np.cumsum(counts)))[np.cumsum(lengths)]
        return np.diff(ends, prepend=0), pieces

    def bytes_of(self, piece: str) -> bytes:
        return bytes_of(piece)


@dataclass(frozen=True)
class TokenizerPieces:
    """Pieces by the tokenizer of a pretrained model, which reads the words of a row with one space between them.

    Args:
        definition: the content of the tokenizer's file `tokenizer.json`.

    Raises:
        HydromelError: the file is damaged, or the pieces do not spell the text.
    """

    definition: str

    def __post_init__(self) -> None:
        if not self.of_bytes and _SPACE not in json.dumps(self._decoder, ensure_ascii=False):
            raise HydromelError(
                "the tokenizer's pieces do not spell the text (they are neither bytes nor of SentencePiece), so no "
                "text could be generated; use a model such as GPT-2, Llama or Qwen3"
            )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        try:
            made = Tokenizer.from_str(self.definition)
        except Exception as error:  # the library documents no class
            reason = " ".join(str(error).split())
            raise HydromelError(f"the tokenizer of the vocabulary is damaged ({reason}); restore its file") from error
        made.no_truncation()
        made.no_padding()
        return made

    @cached_property
    def of_bytes(self) -> bool:
        """True if each character of a piece stands for a byte, as in GPT-2; false for SentencePiece."""
        return '"ByteLevel"' in json.dumps(self._decoder)

    @cached_property
    def _decoder(self) -> object:
        return json.loads(self.tokenizer.to_str())["decoder"]

    @cached_property
    def added(self) -> frozenset[str]:
        """The pieces that are written as they are, such as `<|endoftext|>`."""
        return frozenset(token.content for token in self.tokenizer.get_added_tokens_decoder().values())

    @cached_property
    def strings(self) -> list[str]:
        """The pieces in the order of the tokenizer's ids."""
        return [piece for piece, _ in sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])]

    def cut(self, words: pa.Array, lengths: IntArray) -> tuple[IntArray, pa.Array]:
        if len(wrong := words.filter(pc.match_substring_regex(words, "^$| "))):
            raise HydromelError(
                f"the model's tokenizer splits words, got {wrong[0].as_py()!r}; use it if tokens are words between "
                "spaces (dataset.unit=word)"
            )
        lines = pc.binary_join(list_column(words, np.concatenate(([0], np.cumsum(lengths)))), " ")
        counts, ids = [], []
        for start in range(0, len(lines), _CHUNK):
            part = lines.slice(start, _CHUNK).to_pylist()
            encoded = [line.ids for line in self.tokenizer.encode_batch_fast(part, add_special_tokens=False)]
            counts.append(np.fromiter(map(len, encoded), np.int64, len(encoded)))
            ids.append(np.fromiter(chain.from_iterable(encoded), np.int64, int(counts[-1].sum())))
        empty = np.zeros(0, dtype=np.int64)
        by_id = [self.tokenizer.id_to_token(at) for at in range(1 + max(self.tokenizer.get_vocab().values()))]
        pieces = pa.array(by_id, pa.string()).take(pa.array(np.concatenate([empty, *ids])))
        return np.concatenate([empty, *counts]), pieces

    def bytes_of(self, piece: str) -> bytes:
        if piece in self.added:
            return piece.encode()
        if self.of_bytes:
            return bytes_of(piece) if BYTES.keys() >= {*piece} else piece.encode()
        if byte := _BYTE.fullmatch(piece):
            return bytes.fromhex(byte[1])
        return piece.replace(_SPACE, " ").encode()


def pieces_by(vocab: Vocab) -> Pieces | None:
    """Return the way in which a vocabulary splits words; None if its strings are whole words or characters."""
    if vocab.tokenizer is not None:
        return tokenizer_pieces(vocab.tokenizer)
    return None if vocab.merges is None else MergedPieces(vocab.merges)


@lru_cache(maxsize=4)
def tokenizer_pieces(definition: str) -> TokenizerPieces:
    """Return the pieces of a tokenizer, which is made once."""
    return TokenizerPieces(definition)


def sizes_of(vocab: Vocab, pieces: Pieces) -> IntArray:
    """Return for each id (V, 3) the spaces and characters of its text, and 1 if the text starts with a space.

    The end of a line counts as a space and a character.
    """
    special = [(1, 1, 0) if name == EOS else (0, 0, 0) for name in vocab.specials]
    texts = [pieces.bytes_of(piece) for piece in vocab.strings]
    sizes = [(text.count(b" "), characters_in(text), int(text.startswith(b" "))) for text in texts]
    return np.array([*special, *sizes], dtype=np.int64).reshape(-1, 3)
