"""Data sets of the Hugging Face Hub, or of a local folder with the same layout, through the library `datasets`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.errors import HydromelError, unknown
from runner.common.types import FilePath, Fraction, Name, Text
from runner.text.arrow import array, list_column, mask_of, offsets_of, refuse, split_on_spaces, utf8_bytes
from tasks.datasets.base import check_tag_lists
from tasks.datasets.pairs import TOKENS
from tasks.datasets.split import SPLITS, Cut, cut_missing
from tasks.spans.table import SpanScheme


class PublishedSplit(Protocol):
    """The part of `datasets.Dataset` that is used here."""

    features: Mapping[str, object]
    column_names: list[str]

    def select_columns(self, column_names: list[str]) -> Self: ...

    def with_format(self, type: str) -> Self: ...

    def __getitem__(self, rows: slice) -> Mapping[str, pa.ChunkedArray]: ...


@dataclass(kw_only=True)
class HubDataset:
    """A `runner.interfaces.Corpus` from `datasets.load_dataset`.

    Args:
        name: the data set's name in messages and records.
        path: id on the Hub (`owner/name`), or a folder with the same layout.
        config: the data set's configuration, such as `en_ewt` (null: its only or default one).
        revision: branch, tag or commit on the Hub (null: main).
        splits: train, valid and test -> the name of the split on the Hub (null: cut from train).
        columns: `tokens`, `tokens_b` (the second text of pairs), `label`, `tags` or any other name -> the name of the
            column on the Hub. Strings that become `tokens` or `tokens_b` are split on spaces; lists are kept; class
            numbers become class names.
        span_scheme: scheme of the tags (auto: worked out from the training set; null: plain tags, or none).
        strict_tags: true: an illegal tag is an error; false: illegal tags are kept and counted in the log.
        cut: how missing splits are cut from train, as for local files.
        valid_fraction: share of train cut off for validation if splits.valid is null.
        test_fraction: share of train cut off for testing if splits.test is null.
    """

    name: Name
    path: FilePath
    config: Text | None
    revision: Text | None
    splits: dict[Text, Text | None]
    columns: dict[Name, Text]
    span_scheme: SpanScheme
    strict_tags: bool
    cut: Cut
    valid_fraction: Fraction
    test_fraction: Fraction
    _loaded: dict[str, PublishedSplit] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for split in self.splits:
            if split not in SPLITS:
                raise unknown("split", split, SPLITS, "dataset.splits")
        if self.splits.get("train") is None:
            raise HydromelError(
                f"dataset={self.name}: dataset.splits.train=null; name the split of {self.path} to train on"
            )
        if "tokens" not in self.columns:
            raise HydromelError(f"dataset={self.name}: dataset.columns must name the column that holds tokens")

    def load(self) -> dict[str, PublishedSplit]:
        """Return the configured splits as `datasets.Dataset`; they are loaded once.

        Raises:
            HydromelError: `datasets` cannot load the data (the message has its reason), or there is no such split.
        """
        if self._loaded is not None:
            return self._loaded
        # Imported here because it takes seconds, and few runs need it.
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError

        try:
            published = load_dataset(self.path, self.config, revision=self.revision)
        # RuntimeError: a data set that is a script; ValueError: an unknown configuration
        except (DatasetsError, OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise HydromelError(
                f"dataset={self.name}: cannot load {self.path}: {reason} "
                "(a Hub id needs the network or an earlier download; stdlib_* and local files need neither)"
            ) from error
        split_names = {split: own for split in SPLITS if (own := self.splits.get(split)) is not None}
        for split, own in split_names.items():
            if own not in published:
                raise unknown("split", own, published, f"dataset.splits.{split}, {self.path}")
        self._loaded = {split: published[own] for split, own in split_names.items()}
        return self._loaded

    def fingerprint(self) -> str:
        """Return the sha256 of the used columns' contents and of the reader's options; the same on any machine."""
        tags, cuts = (self.span_scheme, self.strict_tags), (self.cut, self.valid_fraction, self.test_fraction)
        digest = hashlib.sha256(json.dumps([self.columns, *tags, *cuts], sort_keys=True).encode())
        for split, data in self.load().items():
            digest.update(split.encode())
            for name, own in sorted(self.columns.items()):
                digest.update(f"{name} {data.features.get(own)}".encode())
                _digest_column(self._column(data, own), digest)
        return digest.hexdigest()

    def read(self) -> dict[str, pa.Table]:
        """Return one table per split.

        Raises:
            HydromelError: as for `load`; or a column that is missing or of an unsupported type, or an illegal tag.
        """
        tables = {split: self._table(data, split) for split, data in self.load().items()}
        return cut_missing(tables, self.cut, self.valid_fraction, self.test_fraction, self.name)

    def _table(self, data: PublishedSplit, split: str) -> pa.Table:
        where = f"{self.path}:{self.splits[split]}"
        columns = {}
        for name, own in self.columns.items():
            column = _names(self._column(data, own), data.features[own], f"{where}, column {own}")
            columns[name] = (
                split_on_spaces(column) if name in TOKENS.values() and pa.types.is_string(column.type) else column
            )
        if "tags" in columns:
            tokens, tags = columns["tokens"], columns["tags"]
            if not pa.types.is_list(tags.type):
                raise HydromelError(f"{where}: column {self.columns['tags']} has type {tags.type}; tags must be lists")
            check_tag_lists(tokens, tags, self.span_scheme, self.strict_tags, lambda row: f"{where}, row {row}")
        return pa.table(columns).replace_schema_metadata({b"path": where.encode()})

    def _column(self, data: PublishedSplit, own: str) -> pa.Array:
        if own not in data.column_names:
            raise unknown("column", own, data.column_names, f"dataset.columns, {self.path}")
        # The whole column in Arrow: no Python object per row.
        return array(data.select_columns([own]).with_format("arrow")[:][own])


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _names(column: pa.Array, feature: object, where: str) -> pa.Array:
    """Return a column (B,) as string or list<string>: class numbers become names, other numbers their digits.

    `feature` is its type in `datasets`: a `ClassLabel`, or a list of one, has the names.

    Raises:
        HydromelError: a missing value, or a class number without a name (hidden labels are often -1).
    """
    if column.null_count:
        raise HydromelError(f"{where}: {column.null_count} missing values; every row needs one")
    if _is_list(column.type):
        # Earlier versions of `datasets` describe a list by a Python list of its one type.
        inner: object = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
        return list_column(_names(column.flatten(), inner, where), offsets_of(column))
    names: list[str] | None = getattr(feature, "names", None)
    if names is None:
        return column.cast(pa.string())
    outside = pc.invert(pc.and_(pc.greater_equal(column, 0), pc.less(column, len(names))))
    refuse(
        mask_of(outside),
        lambda row: (
            f"{where}: class {column[row].as_py()} has no name; classes are 0 to {len(names) - 1} "
            "(-1: labels are hidden)"
        ),
    )
    return pa.array(names, pa.string()).take(column)


def _digest_column(column: pa.Array, digest: "hashlib._Hash") -> None:
    """Add a column's contents to a digest, independently of its Arrow buffers."""
    if _is_list(column.type):
        digest.update(offsets_of(column).tobytes())
        _digest_column(column.flatten(), digest)
    else:
        data, offsets = utf8_bytes(column.cast(pa.string()))
        digest.update(offsets.tobytes())
        digest.update(data.data)
