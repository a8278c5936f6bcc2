"""Cutting missing validation and test splits from the training set."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.common.errors import HydromelError
from runner.text.arrow import array, lengths_of, offsets_of, utf8_bytes

Cut = Literal["hash", "contiguous"]
SPLITS = ("train", "valid", "test")

BLOCK_ROWS = 20_000  # rows hashed at a time; limits the memory of `content_hash` and does not affect its result
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers are never 0 modulo 2**64
COUNT_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)


def cut_missing(
    tables: dict[str, pa.Table], cut: Cut, valid_fraction: float, test_fraction: float, dataset: str
) -> dict[str, pa.Table]:
    """Fill in missing `valid` and `test` splits with rows removed from `train`.

    `hash`: by a hash of each row's tokens, so that the same text is always in the same split, independently of the
    other rows and their order; the fractions hold on average.
    `contiguous`: train is the first part, then valid, then test; fractions are of tokens, with one line end per row.

    A split with the fraction 0 stays missing.

    Raises:
        HydromelError: the fractions sum to 1 or more, or a split would be left without examples.
    """
    wanted = {"valid": valid_fraction, "test": test_fraction}
    fractions = {split: share for split, share in wanted.items() if split not in tables and share > 0}
    if not fractions:
        return tables
    if sum(fractions.values()) >= 1:
        raise HydromelError(
            f"dataset={dataset}: cutting {fractions} leaves no training set; fractions must sum to less than 1"
        )
    train = tables["train"]
    assigned = (by_hash if cut == "hash" else contiguous)(array(train["tokens"]), fractions)
    parts = {split: train.filter(pa.array(assigned == split)) for split in ("train", *fractions)}
    for split, table in parts.items():
        if table.num_rows == 0:
            raise HydromelError(
                f"{path_of(train)}: cutting {fractions} from {train.num_rows} examples leaves {split} without "
                "examples; change dataset.valid_fraction or dataset.test_fraction"
            )
    complete = {**tables, **parts}
    return {split: complete[split] for split in SPLITS if split in complete}


def path_of(table: pa.Table) -> Path:
    """Return the path of the file that a table was read from."""
    return Path((table.schema.metadata or {}).get(b"path", b"").decode())


def by_hash(tokens: pa.ListArray, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """Return the split (B,) of each row, a function of its tokens alone."""
    place = (content_hash(tokens) >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
    # Test takes the lowest values and valid the next ones, so changing valid's fraction never affects test.
    test = fractions.get("test", 0.0)
    return np.select([place < test, place < test + fractions.get("valid", 0.0)], ["test", "valid"], "train")


def contiguous(tokens: pa.ListArray, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """Return the split (B,) of each row: first train, then valid, then test, by share of tokens and line ends."""
    ends = np.cumsum(lengths_of(tokens) + 1)
    share = ends / ends[-1]
    test = fractions.get("test", 0.0)
    # The tolerance absorbs rounding where a row ends exactly at a boundary, as with 0.05 + 0.05.
    train_end = 1 - test - fractions.get("valid", 0.0) + 1e-12
    return np.select([share <= train_end, share <= 1 - test + 1e-12], ["train", "valid"], "test")


def content_hash(tokens: pa.ListArray) -> npt.NDArray[np.uint64]:
    """Return a hash (B,) of the bytes of each row's tokens, the same on every machine and with every Arrow version.

    It is a polynomial in the bytes modulo 2**64 (Rabin and Karp 1987), mixed by the finaliser of SplitMix64 (Steele,
    Lea and Flood 2014). It does not resist an adversary.
    """
    blocks = [_hash_block(tokens[start : start + BLOCK_ROWS]) for start in range(0, len(tokens), BLOCK_ROWS)]
    return np.concatenate([np.empty(0, np.uint64), *blocks])


def _hash_block(tokens: pa.ListArray) -> npt.NDArray[np.uint64]:
    data, token_starts = utf8_bytes(tokens.flatten())
    starts = token_starts[offsets_of(tokens)]
    lengths = np.diff(starts)
    # Each row is a sum of (byte + 1) * MULTIPLIER**position, taken as a difference of cumulative sums (unsigned, so
    # they wrap modulo 2**64). The + 1 makes a zero byte count; the number of tokens distinguishes `a b` from `ab`.
    position = np.arange(len(data)) - np.repeat(starts[:-1], lengths)
    powers = np.cumprod(np.full(max(1, int(lengths.max(initial=0))), MULTIPLIER, np.uint64))
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum((data + np.uint64(1)) * powers[position])))
    mixed = total[starts[1:]] - total[starts[:-1]] + COUNT_MULTIPLIER * (lengths_of(tokens) + 1).astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashes: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return hashes
