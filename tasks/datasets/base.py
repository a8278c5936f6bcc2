"""The base classes of readers of local files: finding files, their encoding, missing splits, and the fingerprint."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from runner.common.class_names import stable_name
from runner.common.errors import HydromelError
from runner.common.types import Encoding, FilePath, Fraction, Name
from runner.text.arrow import lengths_of, offsets_of, refuse
from runner.text.blocks import Blocks
from runner.text.tokenizers import WHITESPACE, Tokenizer
from tasks.datasets.files import Files, TextFile, find_all, read_text, sha256
from tasks.datasets.split import Cut, cut_missing
from tasks.datasets.text_blocks import BlockEnd, text_blocks
from tasks.spans.finding import TagRules, check_tags
from tasks.spans.table import SpanScheme

RULES_VERSION = 3  # part of the fingerprint: increase it when the same bytes are read differently
# Options that are not in the fingerprint, since the contents of the files are in it.
NOT_IN_FINGERPRINT = ("tokenizer", "ignored_tags", "name", "data_dir", "train", "valid", "test", "width")

# No `from __future__ import annotations` here or in the modules of subclasses: configs are checked against the
# inherited annotations of `__init__`, which must be types, not strings that only another module can resolve.


@dataclass(kw_only=True)
class FilesCorpus(ABC):
    """A `runner.interfaces.Corpus` with one or more files per split. Subclasses define how a file is read.

    Args:
        name: the data set's name in messages and records.
        data_dir: folder that `train`, `valid` and `test` are relative to (null: the working directory).
        train: files of the training set, as `find_all` takes them: one or a list, patterns such as `part-*.gz`, or `-`
            for standard input. Rows are in the order of the files.
        valid: files of the validation set (null: cut from the training set).
        test: files of the test set (null: cut from the training set).
        cut: how missing splits are cut (`cut_missing`): `stratified` by label, by `hash` of the text, or `contiguous`.
        valid_fraction: share of the training set cut off for validation if `valid` is null (0: no validation set).
        test_fraction: share of the training set cut off for testing if `test` is null (0: no test set).
    """

    name: Name
    data_dir: FilePath | None
    train: Files
    valid: Files | None
    test: Files | None
    cut: Cut
    valid_fraction: Fraction
    test_fraction: Fraction

    @abstractmethod
    def read_file_blocks(self, path: Path, split: str) -> Iterator[pa.Table]:
        """Yield a file as tables of consecutive examples, made by `example_table`; `-` stands for standard input."""

    def paths(self) -> dict[str, list[Path]]:
        """Return the paths of each split that has files.

        Raises:
            HydromelError: a file is missing or named twice.
        """
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        paths = {
            split: find_all(files, self.data_dir, f"dataset={self.name}")
            for split, files in named.items()
            if files is not None
        }
        split_of_file: dict[Path, str] = {}
        for split, files in paths.items():
            for path in files:
                if (other := split_of_file.get(path.resolve())) == split:
                    raise HydromelError(f"dataset={self.name}: {split} names the same file twice, {path}")
                if other is not None:
                    raise HydromelError(
                        f"dataset={self.name}: {other} and {split} name the same file, {path}; give each split its "
                        "own, or null to cut it from train"
                    )
                split_of_file[path.resolve()] = split
        return paths

    def fingerprint(self) -> str:
        """Return the sha256 of the files' bytes and of the reader's options, but not of the files' paths."""
        record = {
            "reader": stable_name(f"{type(self).__module__}.{type(self).__qualname__}"),
            "rules_version": RULES_VERSION,
            "arguments": {key: value for key, value in asdict(self).items() if key not in NOT_IN_FINGERPRINT},
            "tokenizer": repr(getattr(self, "tokenizer", None)),
            "files": {split: [sha256(path) for path in paths] for split, paths in self.paths().items()},
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def read(self) -> dict[str, pa.Table]:
        """Return one table per split, all in memory; otherwise as `read_blocks`."""
        return {split: blocks.whole() for split, blocks in self.read_blocks().items()}

    def read_blocks(self) -> dict[str, Blocks]:
        """Return the rows of each split, in the order train, valid, test.

        The rows of several files have an `origin`, the path and line of each row.

        Raises:
            HydromelError: a file is malformed; the message has its path and, if possible, the line.
        """
        splits = {split: Blocks(self._tables(split, paths)) for split, paths in self.paths().items()}
        return cut_missing(splits, self.cut, self.valid_fraction, self.test_fraction, self.name)

    def _tables(self, split: str, paths: Sequence[Path]) -> Iterator[pa.Table]:
        for path in paths:
            n_rows = 0
            for table in self.read_file_blocks(path, split):
                n_rows += table.num_rows
                if len(paths) > 1:
                    origin = pc.binary_join_element_wise(str(path), table["line"].cast(pa.string()), ":")
                    table = table.append_column("origin", origin)
                yield table
            if not n_rows:
                raise HydromelError(f"{path}: no examples in the file")


def lists_of_tokens(column: pa.Array, tokenizer: Tokenizer, where: str) -> pa.ListArray:
    """Return the tokens of a column (B,) of texts, or the lists of tokens that it has already.

    Raises:
        HydromelError: lists of tokens, and another tokenizer.
    """
    if pa.types.is_string(column.type):
        return tokenizer.spans(column).tokens()
    if tokenizer != WHITESPACE:
        raise HydromelError(f"{where}: lists of tokens, which no tokenizer splits; use tokenizer=whitespace")
    return column


@dataclass(kw_only=True)
class RawText:
    """A part of readers of raw text.

    Args:
        tokenizer: how text is split into tokens, from the group `tokenizer`.
    """

    tokenizer: Tokenizer = WHITESPACE

    def split(self, texts: pa.Array) -> pa.ListArray:
        """Return the tokens of texts (B,): lists of strings."""
        return self.tokenizer.spans(texts).tokens()


@dataclass(kw_only=True)
class HasTags:
    """A base for readers of tags: the options that say which tags are legal.

    Args:
        span_scheme: scheme of the tags (auto: worked out from the training set; null: plain tags, or none).
        strict_tags: true: an illegal tag is an error; false: illegal tags are kept and counted in the log.
        ignored_tags: tags that the task ignores; they are legal in any scheme.
    """

    span_scheme: SpanScheme
    strict_tags: bool
    ignored_tags: Sequence[str | int] = ()

    @property
    def tag_rules(self) -> TagRules:
        """The rules by which the tags of a file are checked."""
        return TagRules(self.span_scheme, self.strict_tags, self.ignored_tags)


@dataclass(kw_only=True)
class LocalCorpus(FilesCorpus):
    """A corpus of text files, plain or compressed. Subclasses define how a file is parsed.

    Args:
        encoding: encoding of the files, by its Python name.
    """

    encoding: Encoding

    @property
    def block_end(self) -> BlockEnd | None:
        """Where a file can be divided into blocks that are parsed one at a time; None: nowhere."""
        return None

    @abstractmethod
    def parse(self, file: TextFile, split: str) -> pa.Table:
        """Return a file, or a block of one, as a table of examples, made by `example_table`."""

    def read_file_blocks(self, path: Path, split: str) -> Iterator[pa.Table]:
        if self.block_end is None:
            yield self.parse(read_text(path, self.encoding), split)
            return
        for block in text_blocks(path, self.encoding, self.block_end):
            yield self.parse(block, split)


def check_tag_lists(tokens: pa.ListArray, tags: pa.ListArray, rules: TagRules, at: Callable[[int], str]) -> None:
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

    check_tags(tags.flatten(), offsets, rules, at_token)
