"""Numericalise a corpus once: every split becomes a `Batch` of integer columns, cached on disk under a content hash.

A corpus is read in blocks of rows (`runner.text.blocks`): strings are counted block by block for the vocabularies, then
each block becomes integers, so that memory does not depend on the size of the corpus. A cache file has vocabularies and
figures as its header (`runner.data.columns`). It is written to a temporary file and renamed. A file that does not match
its hash is replaced, never used.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import pyarrow as pa
import torch

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.files import remove_leftovers
from runner.common.records import DataRecord
from runner.components.model_parts import ModelParts
from runner.components.run_components import check_fit
from runner.data.cache_lock import building
from runner.data.columns import Array, SplitColumns, batch_of, read_columns, write_columns
from runner.data.counts import SplitCounts
from runner.data.pairs import arrange_texts, check_texts, read_texts
from runner.data.split_rows import keep_rows, rows_path
from runner.data.truncation import Truncation
from runner.interfaces import (
    BatchingStrategy,
    Corpus,
    HasUnseenTargets,
    ReadsBlocks,
    StrategyChooser,
    Task,
    read_blocks,
)
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.terminal.progress import stage, track
from runner.text.blocks import Blocks, Mapped
from runner.text.features import BringsVocabulary, TokenFeature
from runner.text.pieces import pieces_by
from runner.text.vocab import PlainVocab, Vocab

RULES = 8  # version of numericalising; raise it with a change, so that old cache files are not used
TARGET = "target"
_ABANDONED_SECONDS = 86_400.0  # older temporary files are removed, also those of other machines that share the cache
SPLITS = ("train", "valid", "test")


class Header(TypedDict):
    """The JSON values of a cache file, see `Data`."""

    vocabs: dict[str, PlainVocab]
    oov_rate: dict[str, dict[str, float]]
    counts: dict[str, DataRecord]
    notes: dict[str, dict[str, int]]
    fingerprint: str
    splits: list[str]


@dataclass(frozen=True)
class Data:
    """A corpus as integers."""

    splits: dict[str, Batch]  # train, valid and, if there is one, test
    vocabs: dict[str, Vocab]  # a vocabulary for each feature, and `target` (labels that train lacks are `extra`)
    oov_rate: dict[str, dict[str, float]]  # by split and feature: the share (0 to 1) of tokens unknown to training
    counts: dict[str, DataRecord]  # by split
    notes: dict[str, dict[str, int]]  # by split: things that the reader left out or had to decide, and how often
    fingerprint: str  # hash of the corpus: its files and the options for reading them
    cached: bool  # true if it comes from the cache
    rows: Path | None = None  # where the rows of a split are kept as read (`runner.data.split_rows`)

    @property
    def vocab_sizes(self) -> dict[str, int]:
        """The number of strings of each vocabulary; of targets those that a model can predict."""
        return {name: vocab.known if name == TARGET else len(vocab) for name, vocab in self.vocabs.items()}


def load(
    corpus: Corpus,
    features: Mapping[str, TokenFeature],
    task: Task,
    task_key: str,
    truncation: Truncation,
    cache: Path | None,
    given: Mapping[str, Vocab] | None = None,
) -> Data:
    """Return the corpus as integers, from the folder `cache` if it has exactly this content; None: no cache.

    The task makes the targets, which depend on its options; `task_key` has these as text. The vocabularies of features
    are the `given` ones, of a run; or those that they bring (`BringsVocabulary`); or made from the training set.

    Of several processes that need the same data one reads it, and the others wait for the cache.

    Raises:
        HydromelError: a split, column or label is missing; rows with one target per token are to be cut at their
            start; or a cache file cannot be read or written.
    """
    fingerprint = corpus.fingerprint()
    options = {name: repr(feature) for name, feature in features.items()}
    of_content = [RULES, fingerprint, options, task_key, truncation.max_length, truncation.keep]
    brought = {name: feature for name, feature in features.items() if isinstance(feature, BringsVocabulary)}
    known = {name: feature.own_vocab() for name, feature in brought.items() if name not in (given or {})}
    known |= {name: vocab for name, vocab in (given or {}).items() if name in features}
    if known:
        of_content.append({name: known[name].to_plain() for name in features if name in known})
    if cache is None:
        blocks = _read_corpus(corpus, fingerprint)
        return _numericalize(blocks, corpus, features, task, truncation, fingerprint, known)[0]
    key = hashlib.sha256(json.dumps(of_content, sort_keys=True).encode()).hexdigest()
    path = cache / f"{corpus.name}-{key[:24]}.columns"
    rows = rows_path(cache, corpus, fingerprint, RULES)
    if (cached := _read(path)) is not None:
        return replace(cached, rows=rows)
    with building(path, corpus.name):
        if (cached := _read(path)) is not None:
            return replace(cached, rows=rows)
        blocks = _read_corpus(corpus, fingerprint)
        data, arrays = _numericalize(blocks, corpus, features, task, truncation, fingerprint, known)
        write_columns(path, json.dumps(_header(data)).encode(), arrays)
        last = predicted_split(blocks)
        keep_rows(rows, last, blocks[last].whole())
        if any(isinstance(values, np.memmap) for values in arrays.values()):
            data = replace(_read(path) or data, cached=False)  # their temporary files can go
    for pattern in (".*.columns.*", ".*.rows.*"):
        remove_leftovers(cache, pattern, _ABANDONED_SECONDS)
    return replace(data, rows=rows)


def _read_corpus(corpus: Corpus, fingerprint: str) -> dict[str, Blocks]:
    with stage(f"reading {corpus.name}"):
        blocks = read_blocks(corpus)
    if isinstance(corpus, ReadsBlocks) and corpus.fingerprint() != fingerprint:
        raise HydromelError(f"dataset={corpus.name}: a file changed while it was read; start again once it is complete")
    return blocks


def predicted_split(splits: Container[str]) -> Literal["valid", "test"]:
    """Return the split that a finished run is evaluated on, and whose predictions are written."""
    return "test" if "test" in splits else "valid"


def _numericalize(
    splits: Mapping[str, Blocks],
    corpus: Corpus,
    features: Mapping[str, TokenFeature],
    task: Task,
    truncation: Truncation,
    fingerprint: str,
    known: Mapping[str, Vocab],
) -> tuple[Data, dict[str, Array]]:
    """Map the strings of every split to integers; vocabularies that are not `known` are from the training set only.

    Return also the columns of all splits, by `SPLIT/COLUMN`.
    """
    for needed in ("train", "valid"):
        if needed not in splits:
            raise HydromelError(f"dataset={corpus.name} has no {needed} split; it has {', '.join(splits)}")
    keep = truncation.keep
    if truncation.max_length is None and keep != "head":
        raise HydromelError(f"truncate={keep} has no effect with max_length=null; give max_length=N")
    check_texts(splits["train"], task, corpus.name)

    def texts_of(table: pa.Table) -> pa.Table:
        return read_texts(table, task, features)

    texts = {split: Mapped(texts_of, blocks) for split, blocks in splits.items()}
    columns = next(iter(texts["train"])).column_names
    for name, feature in features.items():
        if feature.column not in columns:
            raise HydromelError(
                f"features.{name}.column={feature.column}: dataset={corpus.name} has no such column; it has "
                f"{', '.join(columns)}"
            )
    vocabs = {
        name: known[name] if name in known else feature.vocab(texts["train"]) for name, feature in features.items()
    }
    vocabs[TARGET] = task.target_vocab(splits["train"], {name: vocab.learned for name, vocab in vocabs.items()})
    for name, feature in features.items():
        # `runner.text.features.extend_vocabulary` does the same for text after training
        if feature.extend and name not in known:
            vocabs[name] = vocabs[name].extend(feature.strings(block) for part in texts.values() for block in part)
    vocabs[TARGET] = with_unseen(task, vocabs[TARGET], splits)
    data, arrays = Data({}, vocabs, {}, {}, {}, fingerprint, cached=False), dict[str, Array]()
    for split in track([split for split in SPLITS if split in splits], "numericalising", len(splits)):
        own, counts, unknown = SplitColumns(task.carries_state), SplitCounts(vocabs[TARGET]), Counter[str]()
        n_rows = n_values = 0
        for table in splits[split]:
            ids_of = columns_of(texts_of(table), features, vocabs)
            for name, ids in ids_of.items():
                unknown[name] += _count_unknown(ids.values, vocabs[name])
            n_values += next(iter(ids_of.values())).rows.n_tokens
            whole = task.encode(ids_of, table, vocabs)
            if keep != "head" and isinstance(whole.target, Ragged):
                raise HydromelError(
                    f"truncate={keep}: task={task.name} predicts every token, and a cut row would start in the middle "
                    "of a sentence or span; use truncate=head"
                )
            used = cut_split(task, truncation, whole, is_trained_on=split == "train")
            counts.add(whole, used)
            # Targets that were cut off count as missed only in evaluation.
            used = replace(used, cut=None) if split == "train" else used
            own.append(arrange_texts(used, task, vocabs), n_rows)
            n_rows += table.num_rows
        arrays |= {f"{split}/{name}": values for name, values in own.arrays().items()}
        data.splits[split] = batch_of(arrays, f"{split}/")
        data.oov_rate[split] = {name: unknown[name] / n_values if n_values else 0.0 for name in features}
        data.counts[split] = {**counts.record(), "rows": len(data.splits[split].index)}  # one row if it is one text
        data.notes[split] = {note: count for note, count in splits[split].notes.items() if count}
    for name, vocab in vocabs.items():
        if vocab.forgotten and name not in known:
            data.notes["train"][f"occurrences of a rare string of features.{name} may not be counted"] = vocab.forgotten
    return data, arrays


def with_unseen(task: Task, targets: Vocab, splits: Mapping[str, Iterable[pa.Table]]) -> Vocab:
    """Return the possible targets, with those of valid and test that the training set lacks as `extra`."""
    if not isinstance(task, HasUnseenTargets):
        return targets
    return task.with_unseen(targets, (table for split in SPLITS if split in splits for table in splits[split]))


def cut_split(task: Task, truncation: Truncation, whole: Batch, is_trained_on: bool) -> Batch:
    """Return a split with rows of at most `max_length` tokens.

    For a task that is measured by its losses, a language model, only training cuts rows: a token that the model never
    read has no probability, so it could neither count as missed nor be left out of a perplexity.
    """
    stays_whole = not is_trained_on and task.metric.input_kind == "losses"
    return whole if stays_whole else truncation.apply(whole)


def columns_of(table: pa.Table, features: Mapping[str, TokenFeature], vocabs: Mapping[str, Vocab]) -> dict[str, Ragged]:
    """Return packed columns by feature, which share their rows; a HydromelError if their numbers of values differ."""
    columns: dict[str, Ragged] = {}
    rows: Rows | None = None
    for name, feature in features.items():
        host_lengths, strings = _tokens(table, feature, vocabs[name])
        if rows is None:
            rows = Rows(host_lengths, torch.device("cpu"))
        elif not np.array_equal(rows.host_lengths, host_lengths):
            row = int(np.flatnonzero(rows.host_lengths != host_lengths)[0])
            raise HydromelError(
                f"features.{name}: row {row} has {host_lengths[row]} values for {rows.host_lengths[row]} tokens"
            )
        columns[name] = Ragged(torch.from_numpy(vocabs[name].encode(strings)), rows, "packed")
    return columns


def _tokens(table: pa.Table, feature: TokenFeature, vocab: Vocab) -> tuple[IntArray, pa.Array]:
    """Return the number of tokens of each row, (B,), and the strings of all tokens, (N,)."""
    lengths = table[feature.column].combine_chunks().value_lengths()
    host_lengths = lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    pieces = pieces_by(vocab)
    return (
        (host_lengths, feature.strings(table)) if pieces is None else pieces.cut(feature.strings(table), host_lengths)
    )


def _count_unknown(ids: torch.Tensor, vocab: Vocab) -> int:
    """Return the number of ids that are unknown to training."""
    return int((torch.eq(ids, vocab.unk or 0) | (ids >= vocab.known)).sum())


def _header(data: Data) -> Header:
    return {
        "vocabs": {name: vocab.to_plain() for name, vocab in data.vocabs.items()},
        "oov_rate": data.oov_rate,
        "counts": data.counts,
        "notes": data.notes,
        "fingerprint": data.fingerprint,
        "splits": [*data.splits],
    }


def _read(path: Path) -> Data | None:
    """Return the cached data, or None if there is none or the file is damaged."""
    if (found := read_columns(path)) is None:
        return None
    encoded, arrays = found
    header: Header = json.loads(encoded)
    splits = {split: batch_of(arrays, f"{split}/") for split in header["splits"]}
    vocabs = {name: Vocab.from_plain(plain) for name, plain in header["vocabs"].items()}
    of_reading = (header["oov_rate"], header["counts"], header["notes"])
    return Data(splits, vocabs, *of_reading, header["fingerprint"], cached=True)


def load_data(
    parts: ModelParts, truncation: Truncation, cache_dir: str | None, given: Mapping[str, Vocab] | None = None
) -> Data:
    """Return the data set of a model's parts as integers, from the folder `cache_dir` if it is cached there.

    `cache_dir` may start with `~`; None: no cache. `given` are vocabularies of another run.
    An empty or unreadable data set is a HydromelError.
    """
    if not parts.features:
        raise HydromelError("features={}: at least one is needed, for example features=words")
    cache = None if cache_dir is None else Path(cache_dir).expanduser()
    data = load(parts.corpus, parts.features, parts.task, parts.task_key, truncation, cache, given)
    for name, split in data.splits.items():
        if not len(split.index):
            raise HydromelError(f"dataset={parts.corpus.name}: {name} has no examples{_ignored(data.counts[name])}")
        counts = data.counts[name]
        if counts["ignored"] and not counts["targets"] + (counts["cut_targets"] if name != "train" else 0):
            raise HydromelError(f"dataset={parts.corpus.name}: {name} has no targets{_ignored(counts)}")
    return data


def _ignored(counts: DataRecord) -> str:
    return f": all {counts['ignored']:,} are ignored (missing, -100 or task.ignore)" if counts["ignored"] else ""


def arrange(
    parts: ModelParts, batching: BatchingStrategy | StrategyChooser, train: Batch, max_length: int | None
) -> Batch:
    """Return the training rows as the strategy arranges them; raise a HydromelError if the options do not fit it."""
    check_fit(parts.task, batching, max_length)
    return batching.arrange(train)


def describe_data(name: str, data: Data) -> str:
    """Return one line for the console about the data set `name`."""
    sizes = ", ".join(f"{split} {len(batch.index):,}" for split, batch in data.splits.items())
    tokens = data.splits["train"].real_tokens
    sizes_of = ", ".join(f"{feature} {size:,}" for feature, size in data.vocab_sizes.items())
    where = "from the cache" if data.cached else "read"
    notes = "".join(f"; {split}: {count:,} {note}" for split in data.notes for note, count in data.notes[split].items())
    return f"{name} ({where}): rows {sizes}; {tokens:,} training tokens; vocabulary sizes: {sizes_of}{notes}"
