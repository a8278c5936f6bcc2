"""Numericalise a corpus once: every split becomes a `Batch` of integer columns, cached on disk under a content hash.

A cache file has a JSON header (vocabularies, figures), the arrays of all splits, and a SHA-256 of both. It is
written to a temporary file and renamed. A file that does not match its hash is replaced, never used.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from runner.common.arrays import IntArray
from runner.common.errors import HydromelError
from runner.common.files import remove_leftovers, write_bytes
from runner.common.records import DataRecord
from runner.components.model_parts import ModelParts
from runner.components.run_components import check_fit
from runner.data.cache_lock import building
from runner.data.counts import count_split
from runner.data.pairs import arrange_texts, check_texts, read_texts
from runner.data.split_rows import keep_rows, rows_path
from runner.data.truncation import Truncation
from runner.interfaces import BatchingStrategy, Corpus, HasUnseenTargets, StrategyChooser, Task
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.terminal.progress import stage, track
from runner.text.arrow import notes_of
from runner.text.features import BringsVocabulary, TokenFeature
from runner.text.pieces import pieces_by
from runner.text.vocab import Vocab

RULES = 6  # version of numericalising; raise it with a change, so that old cache files are not used
TARGET = "target"
_ABANDONED_SECONDS = 86_400.0  # older temporary files are removed, also those of other machines that share the cache
SPLITS = ("train", "valid", "test")


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
        return _numericalize(_read_corpus(corpus), corpus, features, task, truncation, fingerprint, known)
    key = hashlib.sha256(json.dumps(of_content, sort_keys=True).encode()).hexdigest()
    path = cache / f"{corpus.name}-{key[:24]}.columns"
    rows = rows_path(cache, corpus, fingerprint, RULES)
    if (cached := _read(path)) is not None:
        return replace(cached, rows=rows)
    with building(path, corpus.name):
        if (cached := _read(path)) is not None:
            return replace(cached, rows=rows)
        tables = _read_corpus(corpus)
        data = _numericalize(tables, corpus, features, task, truncation, fingerprint, known)
        write_bytes(path, _to_bytes(data))
        last = predicted_split(tables)
        keep_rows(rows, last, tables[last])
    for pattern in (".*.columns.*", ".*.rows.*"):
        remove_leftovers(cache, pattern, _ABANDONED_SECONDS)
    return replace(data, rows=rows)


def _read_corpus(corpus: Corpus) -> dict[str, pa.Table]:
    with stage(f"reading {corpus.name}"):
        return corpus.read()


def predicted_split(splits: Container[str]) -> Literal["valid", "test"]:
    """Return the split that a finished run is evaluated on, and whose predictions are written."""
    return "test" if "test" in splits else "valid"


def _numericalize(
    tables: Mapping[str, pa.Table],
    corpus: Corpus,
    features: Mapping[str, TokenFeature],
    task: Task,
    truncation: Truncation,
    fingerprint: str,
    known: Mapping[str, Vocab],
) -> Data:
    """Map the strings of every split to integers; vocabularies that are not `known` are from the training set only."""
    for needed in ("train", "valid"):
        if needed not in tables:
            raise HydromelError(f"dataset={corpus.name} has no {needed} split; it has {', '.join(tables)}")
    keep = truncation.keep
    if truncation.max_length is None and keep != "head":
        raise HydromelError(f"truncate={keep} has no effect with max_length=null; give max_length=N")
    check_texts(tables["train"], task, corpus.name)
    texts = {split: read_texts(table, task, features) for split, table in tables.items()}
    for name, feature in features.items():
        if feature.column not in texts["train"].column_names:
            columns = ", ".join(tables["train"].column_names)
            raise HydromelError(
                f"features.{name}.column={feature.column}: dataset={corpus.name} has no such column; it has {columns}"
            )
    vocabs = {
        name: known[name] if name in known else feature.vocab(texts["train"]) for name, feature in features.items()
    }
    vocabs[TARGET] = task.target_vocab(tables["train"], {name: vocab.learned for name, vocab in vocabs.items()})
    for name, feature in features.items():
        # `runner.text.features.extend_vocabulary` does the same for text after training
        if feature.extend and name not in known:
            vocabs[name] = vocabs[name].extend([feature.strings(table) for table in texts.values()])
    vocabs[TARGET] = with_unseen(task, vocabs[TARGET], tables)
    data = Data({}, vocabs, {}, {}, {}, fingerprint, cached=False)
    for split in track([split for split in SPLITS if split in tables], "numericalising", len(tables)):
        ids_of = columns_of(texts[split], features, vocabs)
        data.oov_rate[split] = {feature: _oov_rate(ids.values, vocabs[feature]) for feature, ids in ids_of.items()}
        whole = task.encode(ids_of, tables[split], vocabs)
        if keep != "head" and isinstance(whole.target, Ragged):
            raise HydromelError(
                f"truncate={keep}: task={task.name} predicts every token, and a cut row would start in the middle of a "
                "sentence or span; use truncate=head"
            )
        used = cut_split(task, truncation, whole, is_trained_on=split == "train")
        data.counts[split] = count_split(whole, used, vocabs[TARGET])
        # Targets that were cut off count as missed only in evaluation.
        data.splits[split] = arrange_texts(replace(used, cut=None) if split == "train" else used, task, vocabs)
        data.notes[split] = notes_of(tables[split])
    return data


def with_unseen(task: Task, targets: Vocab, tables: Mapping[str, pa.Table]) -> Vocab:
    """Return the possible targets, with those of valid and test that the training set lacks as `extra`."""
    if not isinstance(task, HasUnseenTargets):
        return targets
    return task.with_unseen(targets, [tables[split] for split in SPLITS if split in tables])


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


def _oov_rate(ids: torch.Tensor, vocab: Vocab) -> float:
    """Return the share of ids that are unknown to training, 0 to 1."""
    unknown = torch.eq(ids, vocab.unk or 0) | (ids >= vocab.known)
    return float(unknown.double().mean()) if len(ids) else 0.0


def _to_bytes(data: Data) -> bytes:
    header = {
        "vocabs": {name: vocab.to_plain() for name, vocab in data.vocabs.items()},
        "oov_rate": data.oov_rate,
        "counts": data.counts,
        "notes": data.notes,
        "fingerprint": data.fingerprint,
        "features": {split: list(batch.features) for split, batch in data.splits.items()},
    }
    arrays: dict[str, npt.NDArray[np.generic]] = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)}
    for split, batch in data.splits.items():
        arrays[f"{split}/lengths"] = batch.rows.host_lengths
        for name, feature in batch.features.items():
            arrays[f"{split}/features/{name}"] = feature.values.numpy()
        if isinstance(batch.target, Ragged):
            arrays[f"{split}/target_per_token"] = batch.target.values.numpy()
        else:
            arrays[f"{split}/target_per_row"] = batch.target.numpy()
        if batch.cut is not None:
            arrays[f"{split}/cut_lengths"] = batch.cut.rows.host_lengths
            arrays[f"{split}/cut_targets"] = batch.cut.values.numpy()
        arrays[f"{split}/index"] = batch.index
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    body = buffer.getvalue()
    return hashlib.sha256(body).digest() + body


def _read(path: Path) -> Data | None:
    """Return the cached data, or None if there is none or the file is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HydromelError(f"{path} could not be read ({error.strerror}); use cache_dir=null for no cache") from error
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    with np.load(io.BytesIO(content[32:]), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        splits = {split: _batch(arrays, split, names) for split, names in header["features"].items()}
    vocabs = {name: Vocab.from_plain(plain) for name, plain in header["vocabs"].items()}
    of_reading = (header["oov_rate"], header["counts"], header["notes"])
    return Data(splits, vocabs, *of_reading, header["fingerprint"], cached=True)


def _batch(arrays: Mapping[str, IntArray], split: str, names: list[str]) -> Batch:
    rows = Rows(arrays[f"{split}/lengths"], torch.device("cpu"))
    features = {name: Ragged(torch.from_numpy(arrays[f"{split}/features/{name}"]), rows, "packed") for name in names}
    target: torch.Tensor | Ragged
    if f"{split}/target_per_token" in arrays:
        target = Ragged(torch.from_numpy(arrays[f"{split}/target_per_token"]), rows, "packed")
    else:
        target = torch.from_numpy(arrays[f"{split}/target_per_row"])
    cut = None
    if f"{split}/cut_targets" in arrays:
        cut_rows = Rows(arrays[f"{split}/cut_lengths"], torch.device("cpu"))
        cut = Ragged(torch.from_numpy(arrays[f"{split}/cut_targets"]), cut_rows, "packed")
    return Batch(features, target, arrays[f"{split}/index"], cut=cut)


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
