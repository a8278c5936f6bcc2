"""Cutting missing validation and test splits from the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.common.arrays import BoolArray, FloatArray, IntArray
from runner.common.errors import HydromelError
from runner.text.arrow import array, lengths_of, list_column, offsets_of, utf8_bytes, with_notes
from runner.text.blocks import Blocks

Cut = Literal["stratified", "hash", "contiguous"]
SPLITS = ("train", "valid", "test")
TARGETS = ("label", "labels", "tags", "value")  # columns of what is predicted
GROUP = "group"  # column of a corpus: rows with the same string stay together; removed by the cut
BINS = 10  # bins of numbers to predict, each with equally many rows

BLOCK_ROWS = 20_000  # rows hashed at a time; limits the memory of `content_hash` and does not affect its result
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that its powers are never 0 modulo 2**64
COUNT_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)


def cut_missing(
    splits: Mapping[str, Blocks], cut: Cut, valid_fraction: float, test_fraction: float, dataset: str
) -> dict[str, Blocks]:
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
    fractions = {split: share for split, share in wanted.items() if split not in splits and share > 0}
    train = splits["train"]
    if not fractions:
        if GROUP in train.column_names:
            raise HydromelError(
                f"dataset={dataset}: groups have no effect, since no split is cut from train; leave out their column"
            )
        return {split: _without_group(blocks) for split, blocks in splits.items()}
    if sum(fractions.values()) >= 1:
        raise HydromelError(
            f"dataset={dataset}: cutting {fractions} leaves no training set; fractions must sum to less than 1"
        )
    keys = Keys.of(train)
    assigned = _assigned(keys, cut, fractions)
    note = ", which keeps every label in train" if cut == "stratified" else ""
    parts = {}
    for split in ("train", *fractions):
        parts[split] = Blocks(_selected(train, assigned == split, with_all_notes=split == "train"))
        if not parts[split].num_rows:
            raise HydromelError(
                f"{path_of(train)}: cutting {fractions} from {train.num_rows} examples{_together(keys, cut)} leaves "
                f"{split} without examples (dataset.cut={cut}{note}); change dataset.valid_fraction or "
                "dataset.test_fraction"
            )
    complete = {**{split: _without_group(blocks) for split, blocks in splits.items() if split != "train"}, **parts}
    return {split: complete[split] for split in SPLITS if split in complete}


def _without_group(blocks: Blocks) -> Blocks:
    if GROUP not in blocks.column_names:
        return blocks
    return Blocks(_selected(blocks, np.ones(blocks.num_rows, np.bool_), with_all_notes=True))


def _selected(blocks: Blocks, kept: BoolArray, with_all_notes: bool) -> Iterator[pa.Table]:
    """Yield the rows at which `kept` (B,) is true, without their groups; the file's notes stay with train."""
    start = 0
    for block in blocks:
        rows = block.filter(pa.array(kept[start : start + block.num_rows]))
        notes = blocks.notes if with_all_notes and not start else {}
        yield with_notes(rows.drop_columns([GROUP] if GROUP in rows.column_names else []), notes)
        start += block.num_rows


@dataclass(frozen=True)
class Keys:
    """The values by which rows of a training set are assigned to splits: arrays (B,), far smaller than its text."""

    content: npt.NDArray[np.uint64]  # hash of the tokens
    lengths: IntArray  # number of tokens
    group: npt.NDArray[np.uint64] | None  # hash of the group
    targets: pa.Table  # the columns of what is predicted; of several tags or labels of a row each one once

    @classmethod
    def of(cls, train: Blocks) -> Keys:
        """Return the keys of all rows."""
        parts = [
            (
                content_hash(array(block["tokens"])),
                lengths_of(array(block["tokens"])),
                _hashes(block[GROUP]) if GROUP in block.column_names else None,
                pa.table({name: _each_once(array(block[name])) for name in TARGETS if name in block.column_names}),
            )
            for block in train
        ]
        contents, lengths, groups, targets = zip(*parts, strict=True)
        group = np.concatenate(groups) if GROUP in train.column_names else None
        return cls(np.concatenate(contents), np.concatenate(lengths), group, pa.concat_tables(targets))


def _each_once(column: pa.Array) -> pa.Array:
    """Return a column, with each string of a list once and in any order."""
    if not pa.types.is_list(column.type):
        return column
    coded = column.flatten().dictionary_encode()
    row = np.repeat(np.arange(len(column)), lengths_of(column))
    size = len(coded.dictionary) + 1
    pairs = np.unique(row * size + pc.fill_null(coded.indices, size - 1).to_numpy().astype(np.int64))
    ends = np.searchsorted(pairs, np.arange(len(column) + 1) * size)
    strings = pa.concat_arrays([coded.dictionary, pa.array([None], pa.string())])
    return list_column(strings.take(pa.array(pairs % size)), ends)


def _together(keys: Keys, cut: Cut) -> str:
    """Return what a message adds if many rows are never divided between splits."""
    if keys.group is not None:
        return f" in {len(np.unique(keys.group))} groups, which stay whole,"
    n_texts = len(np.unique(keys.content))
    if cut == "contiguous" or n_texts == len(keys.content):
        return ""
    return f" with {n_texts} different texts (the same text is never in two splits)"


def _assigned(keys: Keys, cut: Cut, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """Return the split (B,) of each row."""
    if cut == "contiguous":
        sides = contiguous(keys.lengths, fractions)
        if keys.group is None:
            return sides
        _, first, unit = np.unique(keys.group, return_index=True, return_inverse=True)
        return sides[first][unit]
    of_units = keys.content if keys.group is None else keys.group
    hashes, first, unit = np.unique(of_units, return_index=True, return_inverse=True)
    row, label, names = labels_of(keys.targets, first)
    if cut == "hash" or not names:
        return by_place(uniform(hashes), fractions)[unit]
    keeps = numbers_of(keys.targets) is None  # a bin of numbers may be missing from train, a label may not
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


def path_of(table: pa.Table | Blocks) -> Path:
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


def contiguous(lengths: IntArray, fractions: dict[str, float]) -> npt.NDArray[np.str_]:
    """Return the split (B,) of each row: first train, then valid, then test, by share of tokens and line ends."""
    ends = np.cumsum(lengths + 1)
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
