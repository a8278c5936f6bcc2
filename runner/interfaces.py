"""The protocols that connect the runner with a task, the parts of a model and a corpus. `tasks/` implements them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
import pyarrow as pa
from torch import Tensor, nn
from torch.optim.optimizer import StateDict

from runner.common.arrays import BoolArray, FloatArray, IntArray, SingleArray
from runner.ragged.batch import Batch, PieceCounts
from runner.ragged.ragged import Ragged
from runner.ragged.shapes import Shapes
from runner.text.blocks import Blocks
from runner.text.vocab import Vocab

# The state that an encoder carries from one window of a text to the next: nested lists and tuples of tensors, and of
# arrays for values that the host needs, each with one entry per row in its first dimension. `START` stands for the
# start of texts. None: rows are independent, and the encoder returns None.
State = Tensor | IntArray | Sequence["State"] | None
Layout = Literal["packed", "timestep", "padded", "unmasked"]  # timestep: packed; unmasked: padded, without a mask
Pairs = Literal["apart", "joined"]  # two texts per row: each encoded by itself, or both as one text
PADDED = ("padded", "unmasked")  # layouts with padding
# The column of a corpus that holds the targets: one label, several labels or a number per row, or a tag per token.
TargetColumn = Literal["label", "labels", "value", "tags"]
START: State = ()  # the state at the start of a text that is read in windows


@dataclass(frozen=True)
class Loss:
    """A summed loss and the number of rows or tokens in the sum.

    An update divides once, over all of its micro-batches, so the split into micro-batches does not change the mean.
    """

    total: Tensor
    count: int


@dataclass(frozen=True)
class Predictions:
    """The model's prediction for every row or real token of a split, in the order of the split, on the host.

    `values` are what `Head.predict` returns: `ids` (N,) int64, `sets` of labels (N, C) bool, or `numbers` (N,) float64.
    """

    values: IntArray | BoolArray | FloatArray
    probability: SingleArray | None  # (N,) of the predicted id, or (N, C) of every label, 0 to 1; None for numbers

    @property
    def ids(self) -> IntArray:
        """The predicted ids (N,), of a task that predicts ids."""
        return self.values.astype(np.int64, copy=False)

    @property
    def sets(self) -> BoolArray:
        """The predicted sets (N, C), true for the labels in a set, of a task that predicts sets of labels."""
        return self.values.astype(np.bool_, copy=False)

    @property
    def numbers(self) -> FloatArray:
        """The predicted numbers (N,), of a task that predicts numbers."""
        return self.values.astype(np.float64, copy=False)


class Corpus(Protocol):
    """A text data set as published: one Arrow table for each split (`train`, `valid`, `test`).

    Columns: `tokens` list<string>, and `tokens_b` for the second text of a pair; `label` string, or `labels`
    list<string> where a row may have none or several (classify); `value` double (regress); `tags` list<string> (tag);
    any other columns of the file (those of a second text end in `_b`); optionally `line` int64, the line of the file on
    which each row starts. The schema's metadata may hold `path`, and notes (`runner.text.arrow.with_notes`); if rows
    are from several files, `origin` string has the path and line of each. A null in `label`, or within `tags`, is no
    target. Readers may add `group` string: rows with the same one stay together when splits are cut from train, which
    removes the column.
    """

    name: str

    def fingerprint(self) -> str:
        """Return a hash of the files' contents and of the options they are read with. Cheap compared with `read`."""

    def read(self) -> dict[str, pa.Table]:
        """Return the table of each split."""


@runtime_checkable
class ReadsBlocks(Protocol):
    """A corpus that may be larger than memory."""

    def read_blocks(self) -> dict[str, Blocks]:
        """Return the rows of each split, of which one block is in memory at a time; all of them are those of `read`."""


def read_blocks(corpus: Corpus) -> dict[str, Blocks]:
    """Return the rows of each split of a corpus."""
    if isinstance(corpus, ReadsBlocks):
        return corpus.read_blocks()
    return {split: Blocks([table]) for split, table in corpus.read().items()}


class Embedding(Protocol):
    """A `torch.nn.Module` that maps the ids of each feature to one vector per token; its constructor takes `vocabs`."""

    output_size: int  # dimension of a vector

    def __call__(self, features: Mapping[str, Ragged]) -> Ragged: ...


@runtime_checkable
class ReadsContext(Protocol):
    """A part of an embedding whose vectors depend on the other tokens of the row."""

    token_context: Literal["earlier", "all"]  # the tokens that a vector may depend on


@runtime_checkable
class ReadsPieces(Protocol):
    """A part of an embedding that reads rows as pieces of words, which then decide what a row costs.

    Plans sort, bucket and limit rows by their pieces, and speed and memory are predicted from them. Its counters
    (`HasCounters`) have the group `pieces`, with `real` and `padded` ones.
    """

    def count_pieces(self, split: Batch) -> PieceCounts | None:
        """Return the number of pieces of each row of a split, from host data only; None if pieces cost nothing."""


@runtime_checkable
class ReadsSplits(Protocol):
    """A module that computes something for all rows once, before training: the vectors of a frozen transformer."""

    def read_splits(self, splits: Mapping[str, Batch], cache_dir: Path | None) -> str | None:
        """Take the splits by name, on the host. What can be made again may be kept in `cache_dir`; None: in no file.

        Return a line for the console, or None.
        """

    def assume_read(self) -> None:
        """Behave as after `read_splits`, for rows of any kind and with made-up numbers: to predict time and memory."""


@runtime_checkable
class CarriesState(Protocol):
    """An embedding whose vectors depend on earlier tokens, and that can read a row in windows, as encoders do."""

    def carry(self, features: Mapping[str, Ragged], state: State) -> tuple[Ragged, State]:
        """Return the vectors of the next window of each row, and the state at its end."""


@dataclass(frozen=True)
class OutputLayer:
    """The output layer of a language model over its own M pieces, for a vocabulary of V ids."""

    weight: Tensor  # (M, D), a parameter
    bias: Tensor | None  # (M,), a parameter; None: none
    ids: Tensor  # (V,) int64 the piece of each id; -1: the model has none


@runtime_checkable
class HasOutputLayer(Protocol):
    """An embedding that has the output layer of a language model, which task=lm uses."""

    def output_layer(self) -> OutputLayer:
        """Return the layer; its parameters are the embedding's."""


class Encoder(Protocol):
    """A `torch.nn.Module` that maps token vectors to token vectors, or to one vector per row.

    In the latter case `per_token` is false and rows have length 1. The constructor takes `input_size` and `causal`:
    true for tasks that predict the next token, for which no vector may depend on later tokens. A class that never reads
    later tokens may have the attribute `causal = True` instead. The constructor may take `carries_state`.
    """

    output_size: int
    per_token: bool

    def __call__(self, x: Ragged, state: State) -> tuple[Ragged, State]: ...


@dataclass(frozen=True)
class Description:
    """A report of one part of a model about the data set."""

    kind: str  # key of `vocab` in `result.json`; parts of the same kind share a list there
    entry: Mapping[str, object]  # the part's entry in that list, JSON values by name
    line: str | None  # for the console


# The abilities below are optional. Any `torch.nn.Module` within a model may have them, or the optimiser (`HasAverage`).
# The runner asks for the ability, never for the class.


@runtime_checkable
class HasDescription(Protocol):
    """A module that reports on the data set, before training to the console and after it to `result.json`."""

    def describe(self, splits: Mapping[str, Batch]) -> Description:
        """Return the report, for the splits by name (`train`, `valid`, `test`)."""


@runtime_checkable
class HasFiles(Protocol):
    """A module that needs files besides its weights, such as a tokenizer; they are saved with a run.

    Its constructor takes `files`, the folder that `save_files` wrote when the run was trained; None: a new run.
    """

    def save_files(self, folder: Path) -> None:
        """Write the files to `folder`, which exists."""


@runtime_checkable
class HasBaseWeights(Protocol):
    """A module that starts from the weights of files elsewhere, its base, and may leave them as they are.

    Checkpoints then have the base's hash instead of its tensors, and a saved run reads them from these files again.
    """

    keeps_base: bool  # whether checkpoints have the base's tensors, as they must if training changes them

    def base_names(self) -> Set[str]:
        """Return the names of the base's tensors in this module."""

    def base_hash(self) -> str:
        """Return a hash of the base's tensors, whatever the data type of the arithmetic."""


@runtime_checkable
class WritesFolder(Protocol):
    """A part that another library can read as a folder of its own format, such as a transformer."""

    def write_folder(self, folder: Path) -> float:
        """Write the part to a new folder, and return by how much what it computes then differs."""


@runtime_checkable
class HasCounters(Protocol):
    """A module that counts its work, such as the characters that it read."""

    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """Return the counts of all forward passes so far by name, in groups.

        Called between segments of training; counts must be on the host. The groups of all modules are added up. The
        counts of training are in `result.json`, in the section of the group's name (`characters`) or in `counters`.
        """


@runtime_checkable
class HasRandomness(Protocol):
    """A module whose own forward pass may draw random numbers in training: dropout of any kind."""

    @property
    def has_randomness(self) -> bool:
        """False if it draws none as configured, such as dropout with probability 0."""


@runtime_checkable
class HasAttention(Protocol):
    """A module that attends: its work on a row grows with the square of its length.

    Packed rows run in blocks of similar lengths (`runner.ragged.shapes.with_blocks`).
    """

    has_attention: bool  # false if it does not attend as configured


@runtime_checkable
class HasLayers(Protocol):
    """A module with layers that run in turn: with `shard=full`, ranks gather the parameters of one at a time."""

    def layers_in_turn(self, lengths: IntArray) -> Sequence[nn.Module]:
        """Return the layers, each of which runs once in every forward pass, by a call of the layer itself.

        Return none if that depends on the rows, given the lengths of all of the training set, (R,).
        """


@runtime_checkable
class HasStatistics(Protocol):
    """A module whose forward pass in training updates buffers, such as the running means of batch normalisation."""

    def statistics(self) -> Sequence[Tensor]:
        """Return these buffers. The check of memory before training restores them."""


@runtime_checkable
class HasLearningRates(Protocol):
    """A module with parameters that learn at a separate rate."""

    learning_rate_factors: Mapping[str, float]  # name of a parameter -> its rate as a multiple of the optimiser's


@runtime_checkable
class HasAverage(Protocol):
    """An optimiser that also keeps averaged parameters, by which the model is evaluated."""

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the parameters are the averaged ones."""

    def observe(self, quality: float) -> None:
        """Take the validation quality (larger is better) after each evaluation."""


class Head(Protocol):
    """Map token vectors to scores, and scores to losses and predictions.

    Scores are (B, C) for rows or (N, C) for real tokens: one per class, or whatever else the head needs.
    """

    def __call__(self, encoded: Ragged, batch: Batch) -> Tensor: ...

    def loss(self, scores: Tensor, batch: Batch) -> Loss:
        """Return the loss summed over the targets, with the number of those that are not ignored."""

    def losses(self, scores: Tensor, batch: Batch) -> Tensor | Ragged:
        """Return the terms of that sum: (B,) per row, or a packed `Ragged` per real token.

        They are 0 at targets that are ignored or that the training set lacks.
        """

    def predict(self, scores: Tensor, batch: Batch) -> Tensor:
        """Return the predictions: ids, (B,) or (N,) int64; sets of labels, (B, C) bool; or numbers, (B,) float64."""

    def probabilities(self, scores: Tensor, batch: Batch) -> Tensor | None:
        """Return the probability of every class, (B, C) or (N, C), in at least float32; None if numbers are predicted.

        Those of a row sum to 1 if ids are predicted; for sets, each label has its own.
        """


class Chooser(Protocol):
    """A choice that is made once, from the scores of the whole validation set."""

    def update(self, scores: Tensor, batch: Batch) -> None:
        """Take the scores of one batch, without synchronising with the device."""

    def choose(self) -> None:
        """Set what was to be chosen."""


@runtime_checkable
class ChoosesOnValid(Protocol):
    """A part of a head that is chosen on the validation set before each evaluation there: the thresholds of labels."""

    def chooser(self) -> Chooser | None:
        """Return a new choice; None if nothing is to be chosen."""


@runtime_checkable
class LearnsTargetScale(Protocol):
    """A part of a head that takes constants from the targets of the training set: their mean, for instance.

    It keeps them in buffers, so that they are in every checkpoint.
    """

    def learn_scale(self, train: Batch) -> None:
        """Compute the constants from `train`, before the first update."""


# The input of a metric: losses, or predictions as `Head.predict` returns them (ids, sets of labels, or numbers).
InputKind = Literal["predictions", "label_sets", "numbers", "losses"]


@dataclass(frozen=True)
class Scale:
    """The scale of a number that a metric computes: a figure."""

    unit: str  # "%", "nats", ... or "". Reports print percentages with two decimals, others with three.
    higher_is_better: bool  # the direction in which runs are ranked


class Metric(Protocol):
    """A measurement of a split: `start`, then `update` with every batch, then `compute`.

    The config makes one object; every measurement runs on a shallow copy of it (`runner.components.measures`), so
    `start` must assign new accumulators, not change the old ones. `update` accumulates on the device and never
    synchronises with it.
    """

    @property
    def scales(self) -> Mapping[str, Scale]:
        """The names of the figures that `compute` may return, and their scales; the main one first."""

    @property
    def input_kind(self) -> InputKind:
        """The input of `update`: predictions, as `Head.predict`; or losses, as `Head.losses`."""

    def start(self, vocabs: Mapping[str, Vocab]) -> None:
        """Start a new measurement; `vocabs` are those of the features and of the `target`."""

    def update(self, values: Tensor, batch: Batch) -> None:
        """Add the predictions or losses of one batch.

        The targets of `batch` are those that count (`runner.ragged.scored`), one for each value: ignored ones are left
        out, so that features may have more tokens. Targets that `max_length` cut off have the prediction
        `NO_PREDICTION`, and targets that the training set lacks have no loss.
        """

    def compute(self) -> Mapping[str, object]:
        """Return numbers by name (floats), and detail tables by name.

        Those with a row for each label, or for pairs of labels, are Arrow tables (`runner.tables.detail`): large ones
        get a file of their own. Others are nested dicts and lists.
        """


class Inspector(Protocol):
    """Conversion of a finished run's predictions to labels, tables and files of the data set."""

    @property
    def column(self) -> TargetColumn:
        """The column of correct targets; `tags` has one per token, the others one per row."""

    def decode(self, values: IntArray | BoolArray | FloatArray, offsets: IntArray) -> pa.Array:
        """Return predicted values (N,) as entries of `column`: strings, lists of strings, or numbers.

        Where values are per token, they are flat, and row i starts at `offsets[i]` (B+1,).
        """

    def tables(self, predictions: Predictions, split: Batch) -> dict[str, object]:
        """Return detail tables by name, as `Metric.compute`, to be added to the metrics of the split.

        As for a metric, the targets are those that count.
        """

    def write(
        self, predictions: Predictions, split: Batch, name: str, corpus: Corpus, table: pa.Table, folder: Path
    ) -> None:
        """Write files to `folder` with the text, the correct targets and the predictions of a split.

        `name` is test or valid; `split` and `table` are that split of `corpus` as integers and as read.
        """


@runtime_checkable
class FindsSpans(Protocol):
    """An inspector of tags, which may encode spans."""

    def spans(self, tags: pa.ListArray) -> list[list[tuple[int, int, str]]] | None:
        """Return the spans of each row (B,): first token, last token + 1 and type. None: the tags encode none."""


class Task(Protocol):
    """The definition of a prediction problem: its targets, its head and its metric.

    A task may also have the abilities `HasFoundOptions`, `HasInspector`, `HasBaselines`, `HasUnseenTargets` and
    `HasLossTables`.
    """

    name: str
    main_metric: str  # the figure of `metric` that compares runs and selects the best checkpoint
    causal: bool  # true if a token's vector may depend on earlier tokens only
    carries_state: bool  # true if a split is one text, over which the encoder's state is carried (batching=stream)

    @property
    def metric(self) -> Metric:
        """The task's own measurement."""

    def target_vocab(self, train: Iterable[pa.Table], vocabs: Mapping[str, Vocab]) -> Vocab:
        """Return the vocabulary of possible targets, taken from the training set only.

        The training set comes in blocks of rows, and may be iterated over several times.
        """

    def encode(self, features: dict[str, Ragged], table: pa.Table, vocabs: Mapping[str, Vocab]) -> Batch:
        """Return a split, or a block of one, as a `Batch`: packed features, and targets numbered by `vocabs['target']`.

        A target per token may be `IGNORED` (`runner.ragged.batch`). A row whose only target is ignored is left out;
        `index` then has the numbers of the rows that stay.
        """

    def count(self, batch: Batch) -> int:
        """Return the number of supervised targets in `batch`, without ignored ones, from host data only."""

    def head(self, encoder: Encoder, vocabs: Mapping[str, Vocab], embedding: nn.Module) -> Head:
        """Return a head for the output of `encoder`; raise if a token-level task gets a row-level encoder."""


@runtime_checkable
class HasFoundOptions(Protocol):
    """A task with options that may be `auto`: their values follow from the training set.

    The config of the run is completed with them, so that a saved run has values only.
    """

    def find_options(self, train: Iterable[pa.Table]) -> Mapping[str, object]:
        """Return the values of the options that are `auto`; raise HydromelError if the training set does not decide.

        The training set comes as for `Task.target_vocab`.
        """


@runtime_checkable
class DescribesFiles(Protocol):
    """A corpus that completes its own config from its files, so that other text is read the same way without them."""

    def describe_files(self) -> Mapping[str, object]:
        """Return options that are not known yet, and their values; none if nothing depends on them.

        Raises:
            HydromelError: the files cannot be read.
        """


@runtime_checkable
class HasInspector(Protocol):
    """A task whose predictions can be read and written: `predictions/` and `hydromel-predict` need it."""

    def inspector(self, vocabs: Mapping[str, Vocab], head: Head) -> Inspector:
        """Return the inspector of the predictions of `head`."""


@runtime_checkable
class HasBaselines(Protocol):
    """A task with simple models that every run is compared with.

    They return the input of the task's metric, predictions or losses, for every target of `test`: (N,) on the host.
    """

    def majority(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Tensor:
        """Return the predictions or losses of always predicting the most frequent target of `train`, for `test`."""

    def baselines(self, train: Batch, test: Batch, vocabs: Mapping[str, Vocab]) -> Iterator[tuple[str, Tensor | str]]:
        """Yield the name of each other simple model, and its predictions or losses for `test`, once it is trained.

        A string instead of predictions says why the model is left out, for example for lack of memory.
        """


@runtime_checkable
class ReadsPairs(Protocol):
    """A task that can read two texts per row, from the columns `tokens` and `tokens_b`.

    Its head then gets `Batch.texts` neighbouring rows of vectors for each target.
    """

    pairs: Pairs | None  # None: rows have one text


@runtime_checkable
class IgnoresTargets(Protocol):
    """A task that ignores some targets; readers that check tags allow these (`ignored_tags`)."""

    ignore: Sequence[str | int]


@runtime_checkable
class HasUnseenTargets(Protocol):
    """A task whose valid and test may have targets that the training set lacks. They count as missed."""

    def with_unseen(self, targets: Vocab, tables: Iterable[pa.Table]) -> Vocab:
        """Return `targets` with the missing ones of all tables appended as `extra`. No model can predict those."""


@runtime_checkable
class HasLossTables(Protocol):
    """A task that analyses its losses: a language model, whose predictions are not analysed."""

    def loss_tables(
        self, losses: FloatArray, split: Batch, train: Batch, vocabs: Mapping[str, Vocab]
    ) -> dict[str, object]:
        """Return detail tables by name for the losses (N,) of the tokens of `split`, in nats, to add to its metrics."""


class Schedule(Protocol):
    """The factor by which the configured learning rate is multiplied at each update."""

    def factor(self, update: int) -> float:
        """Return the factor of update number `update`, counted from 0."""

    def observe(self, quality: float) -> None:
        """Take the validation quality (larger is better) after each evaluation."""

    def state(self) -> StateDict:
        """Return what a checkpoint has to keep, as JSON values by name."""

    def restore(self, state: StateDict) -> None:
        """Continue from the state of a checkpoint."""


class ArrangesRows(Protocol):
    """The part that a strategy and a choice among strategies have in common."""

    @property
    def name(self) -> str:
        """The name in messages, records and reports."""

    @property
    def carries_state(self) -> bool:
        """True if rows are windows of one text and the encoder's state is carried from update to update.

        Such updates are made in order and cannot be cut into micro-batches.
        """

    def arrange(self, split: Batch) -> Batch:
        """Return the training rows, packed: usually those of the split."""


@runtime_checkable  # so that a config that names another class is refused
class BatchingStrategy(ArrangesRows, Protocol):
    """The rows of each update, and how they go through the model in training and in evaluation.

    An update is an array of row numbers, (R,). Rows are those that `arrange` returns, and `lengths` (B,) are theirs, in
    tokens; for pairs that are encoded apart they are (B, 2), of each text (`Batch.lengths`). Where the model reads
    pieces of words, they are numbers of pieces (`Batch.cost_lengths`), and a strategy need not know what they count.
    `runner.batching.strategy.Batching` is for independent rows, `runner.batching.stream.Stream` for one text.
    """

    @property
    def batch_size(self) -> int | None:
        """The number of rows of an update: at most, or about if tokens limit it; None if it follows from neither."""

    @property
    def micro_batch(self) -> int | None:
        """The maximum number of rows that go through the model at once; None: the whole update."""

    @property
    def layout(self) -> Layout:
        """The layout of batches in memory."""

    def updates(self, lengths: IntArray, seed: int, epoch: int) -> Sequence[IntArray]:
        """Return the updates of an epoch; a pure function, so that a run can resume in the middle of an epoch."""

    def learning_rate_factor(self, update: IntArray) -> float:
        """Return the factor of the learning rate at an update: usually 1."""

    def micro_batches(self, train: Batch, update: IntArray) -> Iterator[Batch]:
        """Yield the batches of an update, laid out for the model; `train` is what `arrange` returned."""

    def evaluation_batches(self, split: Batch, batch_size: int) -> Iterator[Batch]:
        """Yield all rows of a split (not arranged) in batches of `batch_size` rows, laid out for the model."""

    def longest(self, lengths: IntArray, updates: Sequence[IntArray]) -> IntArray:
        """Return the longest text of each of U >= 1 updates as the model reads it, in tokens, (U,)."""

    def padding(self, lengths: IntArray, updates: Sequence[IntArray]) -> dict[str, int]:
        """Return the number of padded tokens of some updates by cause (`runner.common.records.PADDING_CAUSES`)."""

    def shapes(self, lengths: IntArray, updates: Sequence[IntArray], blocks: bool = False) -> Shapes:
        """Return the shapes of the micro-batches of some updates, in their order, without building them.

        With `blocks`, the model runs packed rows in blocks, which all stay in memory for the gradients.
        """

    def evaluation_shapes(self, splits: Sequence[Batch], batch_size: int, blocks: bool = False) -> Shapes:
        """Return the shapes of the evaluation batches of some splits, or of the largest ones, without building them.

        With `blocks`, the model runs packed rows in blocks, of which one is in memory at a time.
        """

    def with_batch_size(self, batch_size: int) -> Self:
        """Return the same strategy with another batch size."""

    def with_micro_batch(self, micro_batch: int | None) -> Self:
        """Return the same strategy with this `micro_batch`; never called with a number if `carries_state`."""


@runtime_checkable
class StreamStrategy(BatchingStrategy, Protocol):
    """A strategy that reads one text as parallel streams, in windows; `carries_state` is true.

    The audit, and the options --streams and --window of hydromel-evaluate, need it.
    """

    @property
    def window(self) -> int:
        """The number of tokens of each stream in an update."""

    def with_streams(self, streams: int | None, window: int | None) -> Self:
        """Return the same strategy with other streams (in training and evaluation) and windows; None: unchanged."""


@runtime_checkable
class SharesRows(Protocol):
    """A strategy that decides which rows of an update each rank computes; otherwise they are divided by tokens."""

    def shares(self, update: IntArray, world: int) -> list[IntArray]:
        """Return the rows of each of `world` ranks, which `micro_batches` takes like an update."""


@runtime_checkable
class StrategyChooser(ArrangesRows, Protocol):
    """Several strategies of independent rows, of which `runner.advisor` chooses the fastest before training."""

    @property
    def probe_seconds(self) -> float:
        """The time for trying all strategies, in seconds."""

    @property
    def max_memory_bytes(self) -> int | None:
        """The highest peak memory that the chosen strategy may have; None: no limit."""

    def strategies(self) -> list[tuple[str, BatchingStrategy]]:
        """Return the strategies to choose from, by name; a name may occur with several batch sizes."""
