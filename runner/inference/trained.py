"""A finished run, ready to answer new text: its model and vocabularies, from its folder alone, without its data set.

The folder may be anybody's, so nothing in it is trusted: what the config may name is bounded (`runner.config.saved`),
weights are safetensors, vocabularies JSON. Opening them runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import torch

from runner.batching.plan import by_length
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.files import write_text
from runner.components import ModelParts
from runner.config.saved import saved_model
from runner.config.schema import Dtype, Malloc
from runner.data.numericalize import TARGET, columns_of
from runner.data.truncation import Truncation
from runner.inference.predictions import predict
from runner.interfaces import Corpus, Head, Inspector, Task
from runner.model import Model, build_model, device_of
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.features import TokenFeature
from runner.text.formats.base import Answers
from runner.text.open_vocabulary import admit
from runner.text.vocab import EOS, PAD, Vocab
from runner.training.checkpoint import checkpoint_path, load_checkpoint
from runner.training.setup import DTYPES


@dataclass(frozen=True)
class Trained:
    """A trained model of any task, and what it takes to read text with it.

    Attributes:
        features: how text becomes integer columns.
        vocabs: of training.
        corpus: what it was trained on; not read.
        truncation: how its rows were cut in training.
        malloc: what became of freed memory in training.
    """

    task: Task
    model: Model
    features: dict[str, TokenFeature]
    vocabs: dict[str, Vocab]
    corpus: Corpus
    truncation: Truncation
    malloc: Malloc

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, dtype: Dtype | None, plugins: Sequence[str], data_dir: str | None
    ) -> Trained:
        """The best checkpoint of the run in `folder`.

        Args:
            dtype: of the arithmetic; None: as in training.
            plugins: further module prefixes that the user, not the run, allows.
            data_dir: where the data set, and files of vectors, now lie; None: where they lay in training.

        Raises:
            HydromelError: no run, one of another version, one that is damaged, or a config that names what is not
                allowed.
        """
        config = saved_model(folder, plugins, data_dir)
        vocabs = read_vocabs(folder)
        parts = ModelParts.of(config, plugins)
        _check_specials(folder, vocabs, [*parts.features, TARGET] if parts.task.causal else [])
        model = build_model(parts, vocabs).to(dtype=DTYPES[config.dtype])  # not rounded
        load_checkpoint(checkpoint_path(folder, "best"), model)
        model.to(device=device, dtype=DTYPES[dtype or config.dtype]).eval()
        truncation = Truncation(config.max_length, config.truncate)
        return cls(parts.task, model, parts.features, vocabs, parts.corpus, truncation, config.malloc)


@dataclass(frozen=True)
class Finished:
    """A trained model that labels or tags.

    Attributes:
        inspector: says answers in the corpus's words.
    """

    trained: Trained
    inspector: Inspector

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, dtype: Dtype | None, plugins: Sequence[str], data_dir: str | None
    ) -> Finished:
        """The best checkpoint of the run in `folder`; arguments and errors are those of `Trained.load`.

        Raises:
            HydromelError: also for a language model, whose answers are no labels.
        """
        trained = Trained.load(folder, device, dtype, plugins, data_dir)
        inspector = trained.task.inspector(trained.vocabs)
        if inspector is None:
            raise HydromelError(
                f"{folder}: task={trained.task.name} answers nothing about a text (classify and tag do)"
            )
        return cls(trained, inspector)

    @property
    def columns(self) -> list[str]:
        """Of the text, that the features are made of; `tokens` among them."""
        return list(dict.fromkeys(["tokens", *(feature.column for feature in self.trained.features.values())]))

    def answer(self, table: pa.Table, batch_size: int) -> Answers:
        """Labels of rows, or tags of tokens, with their probabilities, in the table's order.

        In full precision, whatever the run's was: what rows stand beside one another then changes no answer but by
        rounding. Rows to be labelled are cut as in training; every token gets its tag, whatever max_length says.
        """
        per_token = self.inspector.answer == "tags"
        split = self._numericalised(table, per_token)
        strings, probability = pa.array([], pa.string()), pa.array([], pa.float32())
        if table.num_rows:
            model = self.trained.model
            batches = evaluation_batches(split.to(device_of(model)), batch_size)
            found = predict(model, cast(Head, model.head), batches, bf16=False)
            strings = self.inspector.strings(found.answers, split.rows.host_offsets)
            probability = pa.array(found.probability)
        if not per_token:
            return Answers(strings, probability)
        offsets = pa.array(split.rows.host_offsets, pa.int32())
        return Answers(*(pa.ListArray.from_arrays(offsets, flat) for flat in (strings, probability)))

    def _numericalised(self, table: pa.Table, per_token: bool) -> Batch:
        """The rows as integers, with targets that say nothing."""
        run = self.trained
        ids = columns_of(table, run.features, admit(run.model, run.vocabs, run.features, table))
        rows = next(iter(ids.values())).rows
        nothing = torch.zeros(rows.n_tokens if per_token else rows.n_rows, dtype=torch.int64)
        batch = Batch(ids, Ragged(nothing, rows, "packed") if per_token else nothing, np.arange(rows.n_rows))
        return batch if per_token else run.truncation.apply(batch)


def evaluation_batches(split: Batch, batch_size: int) -> Iterator[Batch]:
    """Every row once, from short to long, packed."""
    for rows in by_length(split.rows.host_lengths, batch_size):
        yield split.select(rows)


def write_vocabs(folder: Path, vocabs: Mapping[str, Vocab]) -> None:
    """Keep a run's vocabularies in its folder."""
    plain = {name: vocab.as_plain() for name, vocab in vocabs.items()}
    write_text(folder / run_schema.VOCABS, json.dumps(plain, ensure_ascii=False) + "\n")


def read_vocabs(folder: Path) -> dict[str, Vocab]:
    """A run's vocabularies.

    Raises:
        HydromelError: the run is of a version that kept none, or the file is damaged.
    """
    path = folder / run_schema.VOCABS
    if not path.is_file():
        raise HydromelError(f"{folder} has no {run_schema.VOCABS}: an earlier version trained this run; train it again")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        vocabs = {name: Vocab.of_plain(one) for name, one in plain.items()}
        for name, vocab in vocabs.items():
            if not all(isinstance(token, str) for token in vocab.tokens) or len(vocab.ids) < len(vocab):
                raise ValueError(f"the tokens of '{name}' are no distinct strings")
            if vocab.unk is not None and vocab.unk not in range(len(vocab)):
                raise ValueError(f"the unknown token of '{name}' is {vocab.unk!r}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HydromelError(f"{path}: damaged, no vocabularies ({type(error).__name__}: {error})") from error
    if TARGET not in vocabs:
        raise HydromelError(f"{path}: damaged, it lacks '{TARGET}'")
    return vocabs


def _check_specials(folder: Path, vocabs: Mapping[str, Vocab], needed: Sequence[str]) -> None:
    """Raises HydromelError where what every language model reads is not in one of the `needed` vocabularies."""
    for name in needed:
        if name not in vocabs:
            raise HydromelError(f"{folder / run_schema.VOCABS}: damaged, it lacks '{name}'")
        if EOS not in vocabs[name].ids or vocabs[name].ids.get(PAD) != 0:
            raise HydromelError(
                f"{folder / run_schema.VOCABS}: damaged, '{name}' lacks {EOS}, or does not begin with {PAD}"
            )
