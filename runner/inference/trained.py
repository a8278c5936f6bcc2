"""A finished run, loaded for prediction on new text: its model and vocabularies, from its folder, without its data set.

Nothing in the folder is trusted: a config may only name allowed classes
(`runner.config.saved`), weights are safetensors, and vocabularies are JSON. Opening them executes no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from pydantic import TypeAdapter

from runner.batching.plan import batches_by_length
from runner.common import run_schema
from runner.common.arrays import IntArray
from runner.common.bounded import MOST_VOCABS_BYTES, read_bytes
from runner.common.dtypes import DTYPES
from runner.common.errors import HydromelError
from runner.common.files import write_text
from runner.common.records import parse
from runner.components.measures import Measures
from runner.components.model_parts import ModelParts
from runner.config.saved import saved_model
from runner.config.schema import Dtype, Malloc
from runner.data.numericalize import TARGET, columns_of
from runner.data.pairs import arrange_texts, columns_of_pairs, pairs_of, read_texts
from runner.data.truncation import Truncation
from runner.inference.predictions import predict
from runner.interfaces import Corpus, FindsSpans, HasInspector, Inspector, Predictions, Task
from runner.model import Model, build_model, device_of, saved_files, with_pieces
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.shapes import places_in
from runner.terminal.progress import track
from runner.text.features import TokenFeature, extend_vocabulary
from runner.text.formats.base import STRINGS, PassagePredictions
from runner.text.tokenizers import OFFSETS
from runner.text.vocab import SPECIALS, PlainVocab, Vocab
from runner.training.checkpoint import checkpoint_path, load_checkpoint

_VOCABS = TypeAdapter(dict[str, PlainVocab])


@dataclass(frozen=True)
class TrainedModel:
    """A trained model of any task, with everything needed to read text with it."""

    task: Task
    measures: Measures
    model: Model  # the model, in eval mode
    features: dict[str, TokenFeature]  # conversions of text to integer columns, by name
    vocabs: dict[str, Vocab]  # vocabularies of the features and the target
    corpus: Corpus  # the data set that it was trained on; its files are not read
    truncation: Truncation  # truncation of rows in training
    malloc: Malloc  # setting for freed memory in training

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, dtype: Dtype | None, plugins: Sequence[str], data_dir: str | None
    ) -> TrainedModel:
        """Load the best checkpoint of the run in `folder`.

        Args:
            dtype: arithmetic of the model; None: as in training.
            plugins: further module prefixes that the user, not the run, allows.
            data_dir: folder of the data set and of vector files; None: as in training.

        Raises:
            HydromelError: the folder holds no usable run, or its config names a class that is not allowed.
        """
        config = saved_model(folder, plugins, data_dir)
        try:
            parts = ModelParts.of(config, plugins)
        except HydromelError as error:
            path = folder / run_schema.RESOLVED
            raise HydromelError(f"{path} does not fit this version ({error}); train the run again") from error
        vocabs = read_vocabs(folder, [TARGET, *parts.features] if parts.task.causal else [])
        # Load in the dtype of training, which rounds no weight, and convert afterwards.
        model = build_model(parts, vocabs, saved_files(folder)).to(dtype=DTYPES[config.dtype])
        load_checkpoint(checkpoint_path(folder, "best"), model)
        model.to(device=device, dtype=DTYPES[dtype or config.dtype]).eval()
        truncation = Truncation(config.max_length, config.truncate)
        return cls(parts.task, parts.measures, model, parts.features, vocabs, parts.corpus, truncation, config.malloc)

    def ids_of(self, table: pa.Table) -> dict[str, Ragged]:
        """Return the ids of each feature. Vocabularies grow by new strings, for embeddings that can represent them."""
        texts = read_texts(table, self.task, self.features)
        vocabs = extend_vocabulary(self.model, self.vocabs, self.features, texts)
        return columns_of(texts, self.features, vocabs)


@dataclass(frozen=True)
class Predictor:
    """A trained model of a task that predicts a column of a corpus: a classifier, a regression or a tagger."""

    trained: TrainedModel
    inspector: Inspector  # converts predictions to the corpus's labels

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, dtype: Dtype | None, plugins: Sequence[str], data_dir: str | None
    ) -> Predictor:
        """Load the best checkpoint, see `TrainedModel.load`; raise a HydromelError if the task predicts no labels."""
        return predictor_of(TrainedModel.load(folder, device, dtype, plugins, data_dir), str(folder))

    @property
    def columns(self) -> list[str]:
        """The columns of the input table that the features read, including `tokens` (and `tokens_b` of pairs)."""
        if pairs_of(self.trained.task) is not None:
            return columns_of_pairs(self.trained.features)
        return list(dict.fromkeys(["tokens", *(feature.column for feature in self.trained.features.values())]))

    def check_spans(self) -> None:
        """Raise a HydromelError if the run predicts no spans."""
        if not isinstance(self.inspector, FindsSpans) or self.inspector.spans(pa.array([], STRINGS)) is None:
            raise HydromelError("--spans: this run predicts no spans; use a tagger that learned a span scheme")

    def with_spans(self, predictions: PassagePredictions, table: pa.Table) -> PassagePredictions:
        """Return predictions with their spans, by characters of the raw text; `table` has the columns `OFFSETS`."""
        assert isinstance(self.inspector, FindsSpans)
        by_row = self.inspector.spans(predictions.values) or []
        texts, starts, ends = (table[name].to_pylist() for name in OFFSETS)
        spans: list[object] = []
        for row, found in enumerate(by_row):
            of_row = []
            for first, end, label in found:
                start, stop = starts[row][first], ends[row][end - 1]
                of_row.append({"start": start, "end": stop, "label": label, "text": texts[row][start:stop]})
            spans.append(of_row)
        return replace(predictions, spans=spans)

    def predict(self, table: pa.Table, batch_size: int) -> PassagePredictions:
        """Predict the targets of rows, or the tags of tokens, with their probabilities, in the table's order.

        The arithmetic is full precision, whatever the run used, so that results depend on the other rows of a batch
        only by rounding. Rows to be labelled are truncated as in training; rows to be tagged are never truncated.
        """
        if not table.num_rows:
            return self._no_predictions()
        predictions, split = self._predict(table, batch_size, all_classes=False)
        column, decoded = self.inspector.column, self.inspector.decode(predictions.values, split.rows.host_offsets)
        if predictions.probability is None:
            return PassagePredictions(column, decoded, None)
        if predictions.probability.ndim == 2:
            each = pa.FixedSizeListArray.from_arrays(predictions.probability.ravel(), predictions.probability.shape[1])
            return PassagePredictions(column, decoded, each, self.classes)
        probability = pa.array(predictions.probability)
        if column != "tags":
            return PassagePredictions(column, decoded, probability)
        offsets = pa.array(split.rows.host_offsets, pa.int32())
        lists = (pa.ListArray.from_arrays(offsets, flat) for flat in (decoded, probability))
        return PassagePredictions(column, *lists)

    def probabilities(self, table: pa.Table, batch_size: int) -> tuple[npt.NDArray[np.float32], IntArray]:
        """Return the probability of every class of `classes`, (N, C) float32, and the start of each row, (B + 1,).

        N are the rows or, where tags are predicted, the tokens of all rows.

        Raises:
            HydromelError: the run predicts numbers, which have no probabilities.
        """
        if self.inspector.column == "value":
            raise HydromelError(f"task={self.trained.task.name} predicts numbers, which have no probabilities")
        if not table.num_rows:
            return np.zeros((0, len(self.classes)), dtype=np.float32), np.zeros(1, dtype=np.int64)
        predictions, split = self._predict(table, batch_size, all_classes=True)
        assert predictions.probability is not None
        per_token = self.inspector.column == "tags"
        starts: IntArray = split.rows.host_offsets if per_token else np.arange(table.num_rows + 1)
        return predictions.probability, starts

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels or tags that the model can predict; none if it predicts numbers.

        The tags are those of the scheme that was learned (`task.train_scheme`).
        """
        return () if self.inspector.column == "value" else self.trained.vocabs[TARGET].learned.tokens

    def _predict(self, table: pa.Table, batch_size: int, all_classes: bool) -> tuple[Predictions, Batch]:
        """Return the predictions of at least one row, and the rows as the model read them."""
        run, per_token = self.trained, self.inspector.column == "tags"
        ids = run.ids_of(table)
        rows = next(iter(ids.values())).rows
        # placeholders for the unknown targets
        targets = torch.zeros(rows.n_tokens if per_token else table.num_rows, dtype=torch.int64)
        split = Batch(ids, Ragged(targets, rows, "packed") if per_token else targets, np.arange(table.num_rows))
        if not per_token:
            split = arrange_texts(run.truncation.apply(split), run.task, run.vocabs)
        split = with_pieces(run.model, split)
        by_length = batches_by_length(places_in(split.cost_lengths), batch_size)  # packed, from short to long
        batches = map(split.to(device_of(run.model)).select, by_length)
        shown = track(batches, "predicting", split.real_tokens, lambda batch: batch.real_tokens)
        return predict(run.model, shown, bf16=False, all_classes=all_classes), split

    def _no_predictions(self) -> PassagePredictions:
        """Return predictions for no rows, with the usual types of arrays."""
        column = self.inspector.column
        number: pa.DataType = pa.float32()
        if column == "value":
            return PassagePredictions(column, pa.array([], pa.float64()), None)
        if column == "label":
            return PassagePredictions(column, pa.array([], pa.string()), pa.array([], number))
        if column == "tags":
            return PassagePredictions(column, pa.array([], STRINGS), pa.array([], pa.list_(number)))
        of_labels = pa.array([], pa.list_(number, len(self.classes)))
        return PassagePredictions(column, pa.array([], STRINGS), of_labels, self.classes)


def predictor_of(trained: TrainedModel, where: str) -> Predictor:
    """Return the predictor of a trained model, named `where` in messages.

    Raises:
        HydromelError: its task predicts no labels.
    """
    task = trained.task
    if not isinstance(task, HasInspector):
        raise HydromelError(f"{where}: task={task.name} predicts no labels; use a run of task=classify, regress or tag")
    return Predictor(trained, task.inspector(trained.vocabs, trained.model.head))


def write_vocabs(folder: Path, vocabs: Mapping[str, Vocab]) -> None:
    """Write a run's vocabularies to its folder."""
    plain = {name: vocab.to_plain() for name, vocab in vocabs.items()}
    write_text(folder / run_schema.VOCABS, json.dumps(plain, ensure_ascii=False) + "\n")


def read_vocabs(folder: Path, with_specials: Sequence[str]) -> dict[str, Vocab]:
    """Read a run's vocabularies; raise a HydromelError if the file is damaged or, in early versions, missing.

    Those `with_specials` must have the special tokens that every language model reads.
    """
    path = folder / run_schema.VOCABS
    if not path.is_file():
        raise HydromelError(f"{folder} has no {run_schema.VOCABS}: an earlier version trained this run; train it again")
    content = read_bytes(path, MOST_VOCABS_BYTES)
    if b'"tokens": ' in content and b'"specials": ' not in content:
        raise HydromelError(f"{path}: an earlier version trained this run, with special words; train it again")
    plain = parse(_VOCABS, content, str(path))
    vocabs = {name: Vocab.from_plain(content) for name, content in plain.items()}
    for name, vocab in vocabs.items():
        if len(vocab.ids) < len(vocab.strings):
            raise HydromelError(f"{path} is damaged: the strings of '{name}' must be distinct")
        if vocab.specials not in ((), SPECIALS):
            raise HydromelError(f"{path} is damaged: {name}.specials={[*vocab.specials]}; expected [] or {[*SPECIALS]}")
        if vocab.extra not in range(len(vocab.strings) + 1):
            raise HydromelError(f"{path} is damaged: {name}.extra={vocab.extra} of {len(vocab.strings)} strings")
    for name in with_specials or [TARGET]:
        if name not in vocabs:
            raise HydromelError(f"{path}: damaged, it lacks '{name}'; restore it or train again")
        if with_specials and not vocabs[name].specials:
            raise HydromelError(f"{path}: damaged, '{name}' lacks {', '.join(SPECIALS)}; restore it or train again")
    return vocabs
