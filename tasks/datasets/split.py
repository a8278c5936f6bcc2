"""Cutting missing validation and test splits from the training set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.text.arrow import array, lengths_of, list_column, offsets_of, utf8_bytes, with_notes

Cut = Literal["stratified", "hash", "contiguous"]
SPLITS = ("train", "valid", "test")
GROUP = "group"  # column of a corpus: rows with the same string stay together; removed by the cut
BINS = 10  # bins of numbers to predict, each with equally many rows

BLOCK_ROWS = 20_000  # rows hashed at a time; limits the memory of `content_hash` and does not affect its result
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers are never 0 modulo 2**64
COUNT_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)


def cut_missing(
    tables: dict[str, pa.Table], cut: Cut, valid_fraction: float, test_fraction: float, dataset: str
) -> dict[str, pa.Table]:
    """Fill in missing `valid` and `test` splits with rows removed from `train`.

    Rows with equal `tokens` are one unit, which is never divided; with a column `group`, all rows of a group.

    `stratified`: each split gets its share of the units of every label, and each label keeps a unit in train
    (`stratified`). Without labels, tags or numbers to predict it is the same as `hash`.
    `hash`: by a hash of the unit's tokens or group, so that the same text is always in the same split, independently of
    the other rows and their order; the fractions hold on average.
    `contiguous`: train is the first part, then valid, then test; fractions are of tokens, with one line end per row.
    Only groups are units; a group goes where its first row goes.

    A split with the fraction 0 stays missing.

    Raises:
        HydromelError: the fractions sum to 1 or more, a split would be left without examples, or rows have groups but
            nothing is cut.
    """
    wanted = {"valid": valid_fraction, "test": test_fraction}
    fractions = {split: share for split, share in wanted.items() if split not in tables and share > 0}
    train = tables["train"]
    tables = {
        split: table.drop_columns([GROUP] if GROUP in table.column_names else []) for split, table in tables.items()
    }
    if not fractions:
        if GROUP in train.column_names:
            raise HydromelError(
                f"dataset={dataset}: groups have no effect, since no split is cut from train; leave out their column"
            )
        return tables
    if sum(fractions.values()) >= 1:
        raise HydromelError(
            f"dataset={dataset}: cutting {fractions} leaves no training set; fractions must sum to less than 1"
        )
    assigned = _assigned(train, cut, fractions)
    parts = {split: tables["train"].filter(pa.array(assigned == split)) for split in ("train", *fractions)}
    note = ", which keeps every label in train" if cut == "stratified" else ""
    parts |= {split: with_notes(parts[split], {}) for split in fractions}  # the file's notes stay with train
    for split, table in parts.items():
        if table.num_rows == 0:
            raise HydromelError(
                f"{path_of(train)}: cutting {fractions} from {train.num_rows} examples{_together(train, cut)} leaves "
                f"{split} without examples (dataset.cut={cut}{note}); change dataset.valid_fraction or "
                "dataset.test_fraction"
            )
    complete = {**tables, **parts}
    return {split: complete[split] for split in SPLITS if split in complete}


def _together(train: pa.Table, cut: Cut) -> str:
    """Return what a message adds if many rows are never divided between splits."""
    if GROUP in train.column_names:
        return f" in {pc.count_distinct(train[GROUP]).as_py()} groups, which stay whole,"
    n_texts = len(np.unique(content_hash(array(train["tokens"]))))
    if cut == "contiguous" or n_texts == train.num_rows:
        return ""
    return f" with {n_texts} different texts (the same text is never in two splits)"


def _assigned(train: pa.Table, cut: Cut, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """Return the split (B,) of each row."""
    tokens = array(train["tokens"])
    group = GROUP in train.column_names
    if cut == "contiguous":
        sides = contiguous(tokens, fractions)
        if not group:
            return sides
        _, first, unit = np.unique(_hashes(train[GROUP]), return_index=True, return_inverse=True)
        return sides[first][unit]
    keys = _hashes(train[GROUP]) if group else content_hash(tokens)
    hashes, first, unit = np.unique(keys, return_index=True, return_inverse=True)
    row, label, names = labels_of(train, first)
    if cut == "hash" or not names:
        return by_place(uniform(hashes), fractions)[unit]
    keeps = numbers_of(train) is None  # a bin of numbers may be missing from train, a label may not
    return stratified(unit[row], label, names, len(hashes), fractions, keeps)[unit]


def labels_of(train: pa.Table, first: IntArray) -> tuple[IntArray, IntArray, list[str]]:
    """Return pairs of rows and ids of labels, (P,) and (P,), and the names of these ids, sorted.

    Labels are those of the columns `label`, `labels` or `tags`; or the bin of a number to predict (`numbers_of`) among
    those of the rows `first` (U,). A table without such a column has no pairs and no names.
    """
    rows, values = np.arange(train.num_rows), numbers_of(train)
    if values is not None:
        edges = np.quantile(np.nan_to_num(values[first]), np.arange(1, BINS) / BINS)
        return first, np.searchsorted(edges, values[first], side="right"), [str(number) for number in range(BINS)]
    column = next((name for name in ("label", "labels", "tags") if name in train.column_names), None)
    if column is None:
        return rows[:0], rows[:0], []
    strings = array(train[column])
    if pa.types.is_list(strings.type):
        rows, strings = np.repeat(rows, lengths_of(strings)), strings.flatten()
    names = sorted(pc.unique(strings.drop_null()).to_pylist())
    ids = pc.fill_null(pc.index_in(strings, value_set=pa.array(names, pa.string())), -1).to_numpy().astype(np.int64)
    return rows[ids >= 0], ids[ids >= 0], names


def numbers_of(train: pa.Table) -> FloatArray | None:
    """Return the numbers (B,) to predict: `value`, or `label` if all are numbers and some are no integers.

    The task refuses numbers that are not finite.
    """
    if "value" in train.column_names:
        values: FloatArray = train["value"].to_numpy()
        return values
    if "label" not in train.column_names or train["label"].null_count:
        return None
    try:
        values = train["label"].cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return values if (values[np.isfinite(values)] % 1).any() else None


def stratified(
    unit: IntArray, label: IntArray, names: Sequence[str], n_units: int, fractions: dict[str, float], keeps: bool
) -> npt.NDArray[np.str_]:
    """Return the split (U,) of each unit, from pairs of units and labels, (P,) and (P,).

    Units are numbered in the order of their hashes, which is random but the same for the same texts. A unit counts for
    the rarest of its labels (of equally rare ones the first by name), as in iterative stratification (Sechidis et al.
    2011). Of the n units that count for a label, those with the lowest hashes are in test, the next ones in valid: n
    times the fraction, rounded up or down by a hash of the label's name, so that the fractions hold on average. With
    `keeps`, a label without a unit in train then gets its unit with the highest hash.

    Units of other labels change nothing, except through texts or groups that they share.
    """
    pairs = np.unique(unit * len(names) + label)
    unit, label = pairs // len(names), pairs % len(names)
    counts = np.bincount(label, minlength=len(names))
    order = np.lexsort((label, counts[label], unit))  # by unit, the rarest label first
    labelled, first = np.unique(unit[order], return_index=True)
    stratum = np.full(n_units, len(names))  # units without labels form a stratum of their own
    stratum[labelled] = label[order][first]
    sizes = np.bincount(stratum, minlength=len(names) + 1)
    order = np.argsort(stratum, kind="stable")
    rank = np.empty(n_units, dtype=np.int64)
    rank[order] = np.arange(n_units) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    offset = uniform(_hashes(pa.array([*names, ""], pa.string())))
    sides = by_place((rank + offset[stratum]) / sizes[stratum], fractions)
    if keeps:
        last = np.zeros(len(names), dtype=np.int64)
        np.maximum.at(last, label, unit)
        sides[last[np.bincount(label[sides[unit] == "train"], minlength=len(names)) == 0]] = "train"
    return sides


def path_of(table: pa.Table) -> Path:
    """Return the path of the file that a table was read from."""
    return Path((table.schema.metadata or {}).get(b"path", b"").decode())


def by_hash(tokens: pa.ListArray, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """Return the split (B,) of each row, a function of its tokens alone."""
    return by_place(uniform(content_hash(tokens)), fractions)


def by_place(place: FloatArray, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """Return the split (N,) of places (N,) from 0 to below 1."""
    # Test takes the lowest values and valid the next ones, so changing valid's fraction never affects test.
    test = fractions.get("test", 0.0)
    return np.select([place < test, place < test + fractions.get("valid", 0.0)], ["test", "valid"], "train")


def uniform(hashes: npt.NDArray[np.uint64]) -> FloatArray:
    """Return hashes (N,) as numbers from 0 to below 1."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hashes(strings: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return a hash (N,) of each string."""
    return content_hash(list_column(array(strings), np.arange(len(strings) + 1)))


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
