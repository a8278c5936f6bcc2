"""The base class of readers of local files: finding files, their encoding, missing splits, and the fingerprint."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from runner.common.class_names import stable_name
from runner.common.errors import HydromelError
from runner.common.types import Encoding, FilePath, Fraction, Name
from runner.text.arrow import lengths_of, offsets_of, refuse
from tasks.datasets.files import TextFile, find, read_text, sha256
from tasks.datasets.split import Cut, cut_missing
from tasks.spans.tags import Scheme, check_tags

RULES_VERSION = 1  # part of the fingerprint: increase it when the same bytes are read differently
# Not in the fingerprint, since the files' contents are.
NOT_IN_FINGERPRINT = ("name", "data_dir", "train", "valid", "test")

# No `from __future__ import annotations` here or in the modules of subclasses: configs are checked against the
# inherited annotations of `__init__`, which must be types, not strings that only another module can resolve.


@dataclass(kw_only=True)
class LocalCorpus(ABC):
    """A `runner.interfaces.Corpus` with one file per split. Subclasses define how a file is parsed.

    Args:
        name: the data set's name in messages and records.
        data_dir: folder that `train`, `valid` and `test` are relative to (null: they must be absolute).
        train: file of the training set.
        valid: file of the validation set (null: cut from the training set).
        test: file of the test set (null: cut from the training set).
        encoding: encoding of the files, by its Python name.
        cut: how missing splits are cut: by a `hash` of the text, or `contiguous` (train first, then valid, then test).
        valid_fraction: share of the training set cut off for validation if `valid` is null (0: no validation set).
        test_fraction: share of the training set cut off for testing if `test` is null (0: no test set).
    """

    name: Name
    data_dir: FilePath | None
    train: FilePath
    valid: FilePath | None
    test: FilePath | None
    encoding: Encoding
    cut: Cut
    valid_fraction: Fraction
    test_fraction: Fraction

    @abstractmethod
    def parse(self, file: TextFile, split: str) -> pa.Table:
        """Return a file as a table of examples, made by `example_table`."""

    def paths(self) -> dict[str, Path]:
        """Return the path of each split that has a file.

        Raises:
            HydromelError: a file is missing, or two splits name the same file.
        """
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        paths = {split: find(file, self.data_dir, self.name) for split, file in named.items() if file is not None}
        split_of_file: dict[Path, str] = {}
        for split, path in paths.items():
            if (other := split_of_file.setdefault(path.resolve(), split)) != split:
                raise HydromelError(
                    f"dataset={self.name}: {other} and {split} name the same file, {path}; give each split its own, or "
                    "null to cut it from train"
                )
        return paths

    def fingerprint(self) -> str:
        """Return the sha256 of the files' bytes and of the reader's options, but not of the files' paths."""
        record = {
            "reader": stable_name(f"{type(self).__module__}.{type(self).__qualname__}"),
            "rules_version": RULES_VERSION,
            "arguments": {key: value for key, value in asdict(self).items() if key not in NOT_IN_FINGERPRINT},
            "files": {split: sha256(path) for split, path in self.paths().items()},
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def read(self) -> dict[str, pa.Table]:
        """Return one table per split, in the order train, valid, test.

        Raises:
            HydromelError: a file is malformed; the message has its path and, if possible, the line.
        """
        tables = {}
        for split, path in self.paths().items():
            tables[split] = self.parse(read_text(path, self.encoding), split)
            if tables[split].num_rows == 0:
                raise HydromelError(f"{path}: no examples in the file")
        return cut_missing(tables, self.cut, self.valid_fraction, self.test_fraction, self.name)


def check_tag_lists(
    tokens: pa.ListArray, tags: pa.ListArray, scheme: Scheme | None, strict: bool, at: Callable[[int], str]
) -> None:
    """Check that each row (B,) has one tag per token, and that the tags are legal (`check_tags`).

    Messages name the position `at(row)`.

    Raises:
        HydromelError: more or fewer tags than tokens, or an illegal tag if strict.
    """
    n_tags, n_tokens = lengths_of(tags), lengths_of(tokens)
    refuse(n_tags != n_tokens, lambda row: f"{at(row)}: {n_tags[row]} tags for {n_tokens[row]} tokens")
    offsets = offsets_of(tags)

    def at_token(token: int) -> str:  # in the last row that starts at or before it
        return at(int(offsets.searchsorted(token, side="right")) - 1)

    check_tags(tags.flatten(), offsets, scheme, strict, at_token)
