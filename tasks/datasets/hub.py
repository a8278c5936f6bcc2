"""Data sets of the Hugging Face Hub, or of a local folder with the same layout, through the library `datasets`."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import pyarrow as pa

from runner.common.errors import HydromelError, unknown
from runner.common.types import FilePath, Fraction, Name, Text
from runner.text.arrow import offsets_of, utf8_bytes
from runner.text.blocks import Blocks
from tasks.datasets.arrow_columns import check_columns, class_names, column_of, corpus_table, top_columns
from tasks.datasets.arrow_files import BATCH_ROWS, check_names
from tasks.datasets.base import RULES_VERSION, HasTags, RawText
from tasks.datasets.files import SAVED, Files
from tasks.datasets.split import SPLITS, Cut, cut_missing

log = logging.getLogger(__name__)


class PublishedSplit(Protocol):
    """The part of `datasets.Dataset`, and of `datasets.IterableDataset`, that is used here."""

    column_names: list[str] | None

    def select_columns(self, column_names: list[str]) -> Self: ...

    def with_format(self, type: str) -> Self: ...

    def iter(self, batch_size: int) -> Iterator[pa.Table]: ...

    def __iter__(self) -> Iterator[Mapping[str, object]]: ...


@dataclass(kw_only=True)
class HubDataset(HasTags, RawText):
    """A `runner.interfaces.Corpus` from `datasets.load_dataset`, or from a folder of `save_to_disk`.

    Args:
        name: the data set's name in messages and records.
        data_dir: folder that `path` is relative to, for local files (null: `path` is an id on the Hub, or a folder).
        path: id on the Hub (`owner/name`), or a folder with the same layout or made by `save_to_disk`.
        config: the data set's configuration, such as `en_ewt` (null: its only or default one).
        revision: branch, tag or commit on the Hub (null: main).
        data_files: files of the data set to read, as a name, a pattern, a list of them, or {split: ...} (null: all).
        streaming: read the columns over the network, without keeping the files that they are in.
        splits: train, valid and test -> the name of the split on the Hub (null: cut from train).
        columns: `tokens`, `tokens_b` (the second text of pairs), `label`, `labels`, `value`, `tags` or any other name
            -> the name of the column on the Hub. Strings that become `tokens` or `tokens_b` are split by the tokenizer;
            lists are kept; class numbers become class names. -100 in `label` or `tags` is no target.
        cut: how missing splits are cut from train, as for local files.
        valid_fraction: share of train cut off for validation if splits.valid is null.
        test_fraction: share of train cut off for testing if splits.test is null.
    """

    name: Name
    data_dir: FilePath | None
    path: FilePath
    config: Text | None
    revision: Text | None
    data_files: Files | dict[Text, Files] | None
    streaming: bool
    splits: dict[Text, Text | None]
    columns: dict[Name, Text]
    cut: Cut
    valid_fraction: Fraction
    test_fraction: Fraction
    _loaded: dict[str, Blocks] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for split in self.splits:
            if split not in SPLITS:
                raise unknown("split", split, SPLITS, "dataset.splits")
        if self.splits.get("train") is None:
            raise HydromelError(
                f"dataset={self.name}: dataset.splits.train=null; name the split of {self.path} to train on"
            )
        check_names(self.columns, self.name)

    def load(self) -> dict[str, Blocks]:
        """Return the needed columns of the configured splits, as they are published; they are loaded once.

        Raises:
            HydromelError: `datasets` cannot load the data (the message has its reason), or there is no such split.
        """
        if self._loaded is None:
            published = self._published()
            split_names = {split: own for split in SPLITS if (own := self.splits.get(split)) is not None}
            for split, own in split_names.items():
                if own not in published:
                    raise unknown("split", own, published, f"dataset.splits.{split}, {self.path}; null: cut from train")
            self._loaded = {split: Blocks(self._columns(published[own], split)) for split, own in split_names.items()}
        return self._loaded

    def fingerprint(self) -> str:
        """Return the sha256 of the used columns' contents and of the reader's options; the same on any machine."""
        tags, cuts = (self.span_scheme, self.strict_tags), (self.cut, self.valid_fraction, self.test_fraction)
        options = [RULES_VERSION, repr(self.tokenizer), self.columns, *tags, *cuts]
        digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
        for split, blocks in self.load().items():
            digest.update(split.encode())
            names = class_names(blocks.schema)
            for name, own in sorted(self.columns.items()):
                digest.update(f"{name} {names.get(own)}".encode())
                _digest_column(partial(_column_blocks, blocks, own), digest)
        return digest.hexdigest()

    def read(self) -> dict[str, pa.Table]:
        """Return one table per split, all in memory; otherwise as `read_blocks`."""
        return {split: blocks.whole() for split, blocks in self.read_blocks().items()}

    def read_blocks(self) -> dict[str, Blocks]:
        """Return the rows of each split.

        Raises:
            HydromelError: as for `load`; or a column that is missing or of an unsupported type, or an illegal tag.
        """
        splits = {split: Blocks(self._examples(blocks, split)) for split, blocks in self.load().items()}
        return cut_missing(splits, self.cut, self.valid_fraction, self.test_fraction, self.name)

    def _examples(self, blocks: Blocks, split: str) -> Iterator[pa.Table]:
        before = 0
        for table in blocks:
            yield corpus_table(table, self.columns, self.tag_rules, self.tokenizer, self._where(split), before)
            before += table.num_rows

    def _published(self) -> Mapping[str, PublishedSplit]:
        # Imported here because it takes seconds, and few runs need it.
        from datasets import Dataset, load_dataset, load_from_disk
        from datasets.exceptions import DatasetsError

        path = self._local() or self.path
        saved = any(Path(path, name).is_file() for name in SAVED)
        options = ("config", "revision", "data_files", "streaming")
        if saved and (unused := [option for option in options if getattr(self, option) not in (None, False)]):
            raise HydromelError(
                f"dataset={self.name}: dataset.{unused[0]} has no effect on {path}, a folder of save_to_disk"
            )
        try:
            if saved:
                loaded = load_from_disk(path)
                return {"train": loaded} if isinstance(loaded, Dataset) else loaded
            if self.streaming:
                log.info("dataset.streaming=true: the columns of %s are read anew at the start of each run", path)
            files = {} if self.data_files is None else {"data_files": self.data_files}
            published: Mapping[str, PublishedSplit] = load_dataset(
                path, self.config, revision=self.revision, streaming=self.streaming, **files
            )
            return published
        # RuntimeError: a data set that is a script; ValueError: an unknown configuration
        except (DatasetsError, OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise HydromelError(
                f"dataset={self.name}: cannot load {path}: {reason} "
                "(a Hub id needs the network or an earlier download; stdlib_* and local files need neither)"
            ) from error

    def _local(self) -> str | None:
        """Return the folder of the data set within `data_dir`; None if there is no `data_dir`."""
        if self.data_dir is None:
            return None
        folder = Path(self.data_dir).expanduser()
        places = (folder / self.path, folder / Path(self.path).name)
        if there := next((place for place in places if place.is_dir()), None):
            return str(there)
        raise HydromelError(
            f"dataset={self.name}: data_dir={self.data_dir} means local files, and it has no folder {self.path}, nor "
            f"{Path(self.path).name}; leave data_dir out to read the Hub (embedding.data_dir is for vectors alone)"
        )

    def _columns(self, data: PublishedSplit, split: str) -> Iterator[pa.Table]:
        where = self._where(split)
        names = data.column_names or list(next(iter(data), {}))  # a stream may know them only from its first row
        needed = data.select_columns(top_columns(names, self.columns, where)).with_format("arrow")
        n_rows = 0
        for table in needed.iter(batch_size=BATCH_ROWS):  # in Arrow: no Python object per row
            check_columns(table.schema, self.columns, where)
            yield table
            n_rows += table.num_rows
        if not n_rows:
            raise HydromelError(f"{where}: no examples in the split")

    def _where(self, split: str) -> str:
        return f"{self.path}:{self.splits[split]}"


def _column_blocks(blocks: Blocks, own: str) -> Iterator[pa.Array]:
    return (column_of(table, own) for table in blocks)


def _items(parts: Callable[[], Iterator[pa.Array]]) -> Iterator[pa.Array]:
    return (part.flatten() for part in parts())


def _digest_column(parts: Callable[[], Iterator[pa.Array]], digest: "hashlib._Hash") -> None:
    """Add a column's contents to a digest, independently of its Arrow buffers; `parts` gives its blocks anew."""
    is_list, before = False, 0
    for number, part in enumerate(parts()):
        is_list = pa.types.is_list(part.type) or pa.types.is_large_list(part.type)
        offsets = offsets_of(part) if is_list else utf8_bytes(part.cast(pa.string()))[1]
        digest.update((offsets[min(number, 1) :] + before).tobytes())
        before += int(offsets[-1])
    if is_list:
        _digest_column(partial(_items, parts), digest)
        return
    for part in parts():
        digest.update(utf8_bytes(part.cast(pa.string()))[0].data)
