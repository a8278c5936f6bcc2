"""Pieces of words: the tokenizer of a pretrained transformer cuts each distinct word of a vocabulary once.

A word's pieces are those that it has after a space, so they do not depend on its neighbours. They equal those of
transformers with `is_split_into_words=True`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.text.vocab import EOS, PAD, UNK, Vocab

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class PieceTable:
    """The concatenated piece ids of V word ids."""

    pieces: IntArray  # (M,)
    offsets: IntArray  # (V+1,) start of each word's pieces; the last entry is M
    unknown: int  # number of words with a piece that the tokenizer does not know


@dataclass(frozen=True)
class Specials:
    """The special pieces around the pieces of a row, such as [CLS] and [SEP]; decoders often have none."""

    before: tuple[int, ...]
    between: tuple[int, ...]  # the special pieces between the two texts of a pair
    after: tuple[int, ...]
    second_segment: int  # segment (token type) of a pair's second text; the first has 0

    @property
    def count(self) -> int:
        return len(self.before) + len(self.after)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Specials:
        """Return the special pieces that the tokenizer puts around a text."""
        encode = tokenizer.backend_tokenizer.encode
        plain = encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
        pair = encode(["a"], ["a"], is_pretokenized=True, add_special_tokens=True)
        starts = [at for at in range(len(pair.ids)) if pair.ids[at : at + len(plain)] == plain]
        if not plain or len(starts) < 2:
            raise HydromelError(f"the tokenizer {type(tokenizer).__name__} does not cut the word 'a' into pieces")
        first, second = starts[0], starts[-1]
        before, between = pair.ids[:first], pair.ids[first + len(plain) : second]
        after = pair.ids[second + len(plain) :]
        return cls(tuple(before), tuple(between), tuple(after), pair.type_ids[second])


def unknown_piece(tokenizer: PreTrainedTokenizerFast) -> int:
    """Return the id that stands for a word without pieces, such as a single control character."""
    for name in ("unk_token_id", "pad_token_id", "eos_token_id"):
        found: int | None = getattr(tokenizer, name)
        if found is not None:
            return found
    raise HydromelError(f"the tokenizer {type(tokenizer).__name__} has no unknown, padding or end-of-text token")


def cut_words(vocab: Vocab, tokenizer: PreTrainedTokenizerFast, specials: Specials) -> PieceTable:
    """Return the pieces of each word of a vocabulary.

    Padding has none. Unknown words, and words for which the tokenizer returns no piece, become its unknown piece. The
    line end between the two texts of a pair becomes the special pieces that the tokenizer puts there.
    """
    backend = tokenizer.backend_tokenizer
    encoded = backend.encode_batch([[word] for word in vocab.strings], is_pretokenized=True, add_special_tokens=False)
    unk = unknown_piece(tokenizer)
    end = tokenizer.eos_token_id
    special = {PAD: [], UNK: [unk], EOS: [*specials.between] or [unk if end is None else end]}
    ids = [*(special[name] for name in vocab.specials), *(word.ids or [unk] for word in encoded)]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    pieces = np.fromiter((piece for word in ids for piece in word), np.int64, int(lengths.sum()))
    n_unknown = sum(unk in word for word in ids[len(vocab.specials) :]) if tokenizer.unk_token_id is not None else 0
    return PieceTable(pieces, np.concatenate(([0], np.cumsum(lengths))), n_unknown)
