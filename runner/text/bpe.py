"""Byte pair encoding (Gage 1994; Sennrich et al. 2016) of words, over the bytes of their UTF-8: no text is unknown.

A word is its bytes behind a space, each byte written as one character (Radford et al. 2019: `Ġ` is the space); pieces
are merged in the order in which training found them, never across words. So pieces one after another are the words, and
tell where each begins. Merges are plain strings: opening those of a stranger runs nothing.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from runner.common.errors import HydromelError

SPACE = "Ġ"
_TAUGHT = 65_536  # words that are given to the trainer at once


def _alphabet() -> dict[str, int]:
    """The 256 characters, and their bytes: printable Latin-1 is itself, the others are shifted behind 255."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTES = _alphabet()


def learn_merges(words: pa.Array, count: int, min_count: int, forbidden: Iterable[str]) -> tuple[str, ...]:
    """Up to `count` merges, most frequent pair first; `a b` makes the piece `ab`. The order of words changes nothing.

    Args:
        words: (N,) strings.
        min_count: pairs that occur less often are not merged.
        forbidden: pieces that must not come about, since they mean something else.
    """
    tokenizer = _tokenizer(BPE())
    trainer = BpeTrainer(
        vocab_size=len(BYTES) + count,
        min_frequency=min_count,
        initial_alphabet=sorted(BYTES),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator((some.to_pylist() for some in _slices(words)), trainer)
    learned = [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
    known, never = set(BYTES), set(forbidden)
    merges = []
    for left, right in learned:
        if left in known and right in known and left + right not in never:
            known.add(left + right)
            merges.append(f"{left} {right}")
    return tuple(merges)


def pieces_of(words: pa.Array, merges: tuple[str, ...]) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """How many pieces each word has, (N,), and all of them one after another. Each distinct word is cut once.

    Raises:
        HydromelError: a word that is empty or has a space in it, or merges that cannot be.
    """
    coded = pc.dictionary_encode(words)
    no_words = coded.dictionary.filter(pc.match_substring_regex(coded.dictionary, "^$| "))
    if len(no_words):
        raise HydromelError(
            f"byte pair encoding cuts words, got {no_words[0].as_py()!r}; use it where tokens are words between spaces "
            "(dataset.unit=word)"
        )
    distinct = [one.tokens for one in _of_merges(merges).encode_batch(coded.dictionary.to_pylist())]
    lists = pa.array(distinct, pa.list_(pa.string())).take(coded.indices)
    return lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64), lists.flatten()


def all_pieces(merges: Sequence[str]) -> list[str]:
    """Every piece that there may be: the bytes, and what merges make."""
    return [*sorted(BYTES), *(merge.replace(" ", "") for merge in merges)]


def spelt(pieces: Iterable[str]) -> Iterator[str]:
    """What each piece adds to a text; a character of several bytes comes with the last. Wrong bytes become �."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        yield decoder.decode(bytes(BYTES[letter] for letter in piece))
    if rest := decoder.decode(b"", final=True):
        yield rest


def characters_of(piece: str) -> int:
    """How many characters begin in a piece, its space included."""
    return sum(BYTES[letter] & 0xC0 != 0x80 for letter in piece)  # 10xxxxxx goes on with one


@lru_cache(maxsize=8)
def _of_merges(merges: tuple[str, ...]) -> Tokenizer:
    """Raises HydromelError where a merge is none of pieces that are there."""
    known = set(BYTES)
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if left not in known or right not in known:
            raise HydromelError(f"merge '{merge}' is none of two pieces made before it: the vocabulary is damaged")
        known.add(left + right)
        pairs.append((left, right))
    ids = {piece: place for place, piece in enumerate(dict.fromkeys(all_pieces(merges)))}
    return _tokenizer(BPE(vocab=ids, merges=pairs))


def _tokenizer(model: BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True, use_regex=False)
    return tokenizer


def _slices(words: pa.Array) -> Iterator[pa.Array]:
    return (words.slice(start, _TAUGHT) for start in range(0, len(words), _TAUGHT))
