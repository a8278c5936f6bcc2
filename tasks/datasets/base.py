"""What all readers of local files share: which files, their encoding, the cut of missing splits, the fingerprint."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from runner.common.class_names import stable_name
from runner.common.errors import HydromelError
from runner.common.types import Fraction
from tasks.datasets.files import TextFile, find, read_text, sha256
from tasks.datasets.split import Cut, cut_missing

RULES_VERSION = 1  # raise it when the same bytes come to be read differently: it enters the fingerprint
# what these say is in the fingerprint as the files' contents
NOT_IN_FINGERPRINT = ("name", "data_dir", "train", "valid", "test")

# No `from __future__ import annotations` in this module and its subclasses': configs are checked against the
# inherited annotations of `__init__`, which must be types, not strings to be looked up in another module.


@dataclass(kw_only=True)
class LocalCorpus(ABC):
    """A `runner.interfaces.Corpus` of one file a split. Subclasses say how one file is parsed.

    Args:
        name: of the data set, for messages and records.
        data_dir: the folder that `train`, `valid` and `test` are relative to (null: they must be absolute).
        train: file of the train split.
        valid: file of the validation split (null: cut from train).
        test: file of the test split (null: cut from train).
        encoding: of the files, as Python names it.
        cut: how missing splits are cut: `hash` of the text, or `contiguous` (train first, then valid, then test).
        valid_fraction: share of train that becomes valid where `valid` is null (0: there is then no such split).
        test_fraction: share of train that becomes test where `test` is null (0: there is then no such split).
    """

    name: str
    data_dir: str | None
    train: str
    valid: str | None
    test: str | None
    encoding: str
    cut: Cut
    valid_fraction: Fraction
    test_fraction: Fraction

    @abstractmethod
    def parse(self, file: TextFile, split: str) -> pa.Table:
        """One file as a table of examples, made by `example_table`."""

    def paths(self) -> dict[str, Path]:
        """The file of each split that has one.

        Raises:
            HydromelError: a file is missing, or stands for two splits.
        """
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        found = {split: find(file, self.data_dir, self.name) for split, file in named.items() if file is not None}
        first: dict[Path, str] = {}
        for split, path in found.items():
            other = first.setdefault(path.resolve(), split)
            if other != split:
                raise HydromelError(f"dataset={self.name}: {other} and {split} name the same file, {path}")
        return found

    def fingerprint(self) -> str:
        """sha256 of the files' bytes and of how they are read; not of where they lie."""
        arguments = {key: value for key, value in asdict(self).items() if key not in NOT_IN_FINGERPRINT}
        record = {
            "reader": stable_name(f"{type(self).__module__}.{type(self).__qualname__}"),
            "rules_version": RULES_VERSION,
            "arguments": arguments,
            "files": {split: sha256(path) for split, path in self.paths().items()},
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def read(self) -> dict[str, pa.Table]:
        """One table a split, in the order train, valid, test.

        Raises:
            HydromelError: anything wrong with a file, with its path and, where there is one, its line.
        """
        tables = {}
        for split, path in self.paths().items():
            tables[split] = self.parse(read_text(path, self.encoding), split)
            if tables[split].num_rows == 0:
                raise HydromelError(f"{path}: no examples in the file")
        return cut_missing(tables, self.cut, self.valid_fraction, self.test_fraction, self.name)
