"""Cutting the splits that a data set is published without from its train split."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.arrow import array, lengths_of, offsets_of, utf8_bytes

Cut = Literal["hash", "contiguous"]
SPLITS = ("train", "valid", "test")

BLOCK_ROWS = 20_000  # rows hashed at a time; bounds the memory of `content_hash`, not its result
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so its powers never become 0 modulo 2**64
COUNT_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)


def cut_missing(
    tables: dict[str, pa.Table], cut: Cut, valid_fraction: float, test_fraction: float, dataset: str
) -> dict[str, pa.Table]:
    """Fill in `valid` and `test`, where they are missing, with rows taken out of `train`.

    `hash`: by a hash of each row's tokens, so that the same text always falls into the same split, whatever else
    the file holds and in whichever order; the shares are met on average.
    `contiguous`: train is the beginning, then valid, then test at the end; shares of tokens with one line end a row.

    A split with the fraction 0 stays missing.

    Raises:
        HydromelError: the fractions sum to 1 or more, or a split would be left without examples.
    """
    fractions = {
        split: fraction
        for split, fraction in (("valid", valid_fraction), ("test", test_fraction))
        if split not in tables and fraction > 0
    }
    if not fractions:
        return tables
    if sum(fractions.values()) >= 1:
        raise HydromelError(f"dataset={dataset}: cutting {fractions} leaves nothing to train on")
    train = tables["train"]
    assign = by_hash if cut == "hash" else contiguous
    assigned = assign(array(train["tokens"]), fractions)
    parts = {split: train.filter(pa.array(assigned == split)) for split in ("train", *fractions)}
    for split, table in parts.items():
        if table.num_rows == 0:
            raise HydromelError(
                f"{path_of(train)}: cutting {fractions} from {train.num_rows} examples leaves {split} without examples"
            )
    found = {**tables, **parts}
    return {split: found[split] for split in SPLITS if split in found}


def path_of(table: pa.Table) -> Path:
    """The file that a table was read from."""
    return Path((table.schema.metadata or {}).get(b"path", b"").decode())


def by_hash(tokens: pa.ListArray, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """(B,) the split of each row: a function of its own tokens alone."""
    place = (content_hash(tokens) >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
    # test lies lowest and valid above it, so changing valid's share moves no row into or out of test
    test = fractions.get("test", 0.0)
    return np.select([place < test, place < test + fractions.get("valid", 0.0)], ["test", "valid"], "train")


def contiguous(tokens: pa.ListArray, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """(B,) the split of each row: beginning, then valid, then test, by share of tokens and line ends."""
    ends = np.cumsum(lengths_of(tokens) + 1)
    share = ends / ends[-1]
    test = fractions.get("test", 0.0)
    # a sum such as 0.05 + 0.05 may miss a row's exact share by rounding
    after = 1 - test - fractions.get("valid", 0.0) + 1e-12
    return np.select([share <= after, share <= 1 - test + 1e-12], ["train", "valid"], "test")


def content_hash(tokens: pa.ListArray) -> npt.NDArray[np.uint64]:
    """(B,) a hash of the bytes of each row's tokens, the same on every machine and for every version of Arrow.

    Polynomial in the bytes modulo 2**64 (Rabin and Karp 1987), with the finaliser of SplitMix64 (Steele, Lea and
    Flood 2014), which spreads it over all bits. It guards against no adversary.
    """
    blocks = [_hash_block(tokens[start : start + BLOCK_ROWS]) for start in range(0, len(tokens), BLOCK_ROWS)]
    return np.concatenate([np.empty(0, np.uint64), *blocks])


def _hash_block(tokens: pa.ListArray) -> npt.NDArray[np.uint64]:
    data, token_starts = utf8_bytes(tokens.flatten())
    starts = token_starts[offsets_of(tokens)]
    lengths = np.diff(starts)
    # b + 1, since a byte 0 would add nothing; the number of tokens tells `a b` from `ab`
    position = np.arange(len(data)) - np.repeat(starts[:-1], lengths)
    powers = np.cumprod(np.full(max(1, int(lengths.max(initial=0))), MULTIPLIER, np.uint64))
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum((data + np.uint64(1)) * powers[position])))
    mixed = total[starts[1:]] - total[starts[:-1]] + COUNT_MULTIPLIER * (lengths_of(tokens) + 1).astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return hashes
