"""Byte pair encoding (Gage 1994; Sennrich et al. 2016) of words over their UTF-8 bytes, so that no text is unknown.

A word is a space and its bytes, with each byte written as one character (Radford et al. 2019: `Ġ` is the space). Pieces
are merged in the order in which they were learned, never across words. So the concatenated pieces are the words, and
the spaces mark where words start. Merges are stored as plain strings: loading untrusted ones executes nothing.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError

SPACE = "Ġ"
_TRAIN_CHUNK = 65_536  # words given to the trainer at once


def _alphabet() -> dict[str, int]:
    """Return 256 characters and the bytes they represent: printable Latin-1 is unchanged, others start at 256."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTES = _alphabet()


def learn_merges(words: Iterable[pa.Array], count: int, min_count: int) -> tuple[str, ...]:
    """Learn up to `count` merges from the words of some arrays, most frequent pair first; `a b` makes the piece `ab`.

    Pairs that occur less often than `min_count` are not merged. The result does not depend on the order of the words.
    """
    tokenizer = _tokenizer(BPE())
    trainer = BpeTrainer(
        vocab_size=len(BYTES) + count, min_frequency=min_count, initial_alphabet=sorted(BYTES), show_progress=False
    )
    chunks = (part.slice(start, _TRAIN_CHUNK) for part in words for start in range(0, len(part), _TRAIN_CHUNK))
    tokenizer.train_from_iterator((chunk.to_pylist() for chunk in chunks), trainer)
    return tuple(f"{left} {right}" for left, right in json.loads(tokenizer.to_str())["model"]["merges"])


def pieces_of(words: pa.Array, merges: tuple[str, ...]) -> tuple[IntArray, pa.Array]:
    """Split words (N,) into pieces: return the number of pieces (N,) of each word, and all pieces, concatenated.

    Raises:
        HydromelError: a word that is empty or contains a space, or invalid merges.
    """
    # Splitting is slow compared to a look-up, and most words of a text are repeated.
    coded = pc.dictionary_encode(words)
    no_words = coded.dictionary.filter(pc.match_substring_regex(coded.dictionary, "^$| "))
    if len(no_words):
        raise HydromelError(
            f"byte pair encoding splits words, got {no_words[0].as_py()!r}; use it if tokens are words between spaces "
            "(dataset.unit=word)"
        )
    distinct = [encoded.tokens for encoded in _tokenizer_of(merges).encode_batch(coded.dictionary.to_pylist())]
    lists = pa.array(distinct, pa.list_(pa.string())).take(coded.indices)
    return lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64), lists.flatten()


def all_pieces(merges: Sequence[str]) -> list[str]:
    """Return all possible pieces: the bytes, then the results of the merges."""
    return [*sorted(BYTES), *(merge.replace(" ", "") for merge in merges)]


def bytes_of(piece: str) -> bytes:
    """Return the text of a piece in UTF-8."""
    return bytes(BYTES[letter] for letter in piece)


def decode(texts: Iterable[bytes]) -> Iterator[str]:
    """Yield the text that each piece adds; a character of several bytes comes with its last. Invalid bytes become �."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for text in texts:
        yield decoder.decode(text)
    if rest := decoder.decode(b"", final=True):
        yield rest


def decode_pieces(pieces: Iterable[str]) -> Iterator[str]:
    """Yield the text that each piece adds, see `decode`."""
    return decode(map(bytes_of, pieces))


def characters_in(text: bytes) -> int:
    """Return the number of characters that start in the text of a piece, including its space."""
    return sum(byte & 0xC0 != 0x80 for byte in text)  # 10xxxxxx continues a character


@lru_cache(maxsize=8)
def _tokenizer_of(merges: tuple[str, ...]) -> Tokenizer:
    """Return a tokenizer that applies `merges`; raise a HydromelError if a merge uses an unknown piece."""
    known = set(BYTES)
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if left not in known or right not in known:
            raise HydromelError(
                f"merge '{merge}' does not join two pieces made before it; the vocabulary is damaged, restore its file"
            )
        known.add(left + right)
        pairs.append((left, right))
    ids = {piece: place for place, piece in enumerate(dict.fromkeys(all_pieces(merges)))}
    return _tokenizer(BPE(vocab=ids, merges=pairs))


def _tokenizer(model: BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True, use_regex=False)
    return tokenizer
