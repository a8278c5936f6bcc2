"""Typed records of a run: `run.json`, `result.json`, and the lines of `metrics.jsonl`; docs/results.md explains them.

`parse_run`, `parse_result` and `parse_metrics_line` check a file once, where it is read. A record that lacks a required
key is damaged. Any other key may be missing, as in runs of earlier versions, and is left out if its value has the wrong
type. JSON has no NaN, so a figure that is not finite is `null` in the file and missing in the record. Keys that are not
listed here are kept unchecked. Percentages (accuracy, F1) are 0-100 everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Required, TypeVar

from pydantic import ConfigDict, OnErrorOmit, StringConstraints, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic cannot check that of `typing` before Python 3.12

from runner.common.errors import HydromelError, quoted

T = TypeVar("T")
STRICT = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

Count = OnErrorOmit[int]
Figure = OnErrorOmit[float]
Text = OnErrorOmit[str]
Figures = Mapping[str, object]  # floats by the name of the metric, and the tables of `SplitTables`


@with_config(STRICT)
class CandidateRecord(TypedDict, total=False):
    """A strategy that `batching=auto` considered, with predictions of its cost."""

    name: Required[str]
    batch_size: Required[int | None]  # examples of an update; null for strategies without a fixed number
    layout: Text  # padded or packed
    predicted_real_tokens_per_s: Required[float]
    predicted_pieces_per_s: Figure  # real pieces of words; missing if the model reads no pieces
    predicted_epoch_seconds: Figure  # training only, without evaluation
    predicted_peak_bytes: Required[float]  # comparable to memory.peak_bytes
    padding_share: Figure  # share of all positions in memory, 0 to 1


class AdviceRecord(TypedDict, total=False):
    """The choice of `batching=auto`."""

    chosen: Required[str]
    batch_size: Required[int | None]
    candidates: OnErrorOmit[list[OnErrorOmit[CandidateRecord]]]
    not_run: OnErrorOmit[dict[str, str]]  # candidates that this machine cannot run, and why
    probe_seconds: Figure


@with_config(STRICT)
class InitFromRecord(TypedDict, total=False):
    """The run whose best parameters a run started with (`init_from`)."""

    folder: Required[str]
    run_id: Required[str]
    updates: Required[int]  # number of updates that had made these parameters
    head: Text  # kept, or new because task or labels differ


@with_config(STRICT)
class ChangeRecord(TypedDict, total=False):
    """An option that changed when a run was resumed."""

    option: Required[str]
    updates: Required[int]  # number of updates made before the change
    before: object
    after: object


@with_config(STRICT)
class RunRecord(TypedDict, total=False):
    """The content of `run.json`: the identity of a run, written first, and its status, kept current."""

    run_id: Required[Annotated[str, StringConstraints(pattern="^[0-9A-Za-z_-]{1,64}$")]]  # used in paths and queries
    created: Required[float]  # unix seconds
    cwd: Text  # working directory in which it was started
    seal: OnErrorOmit[str | None]  # seal of the installation that started it (runner/common/seal.py)
    name: Text  # shown by trackers
    experiment: OnErrorOmit[str | None]  # the named experiment that the run belongs to
    sweep_id: OnErrorOmit[str | None]  # the sweep that the run belongs to
    tags: OnErrorOmit[dict[str, str]]  # task, dataset, embedding, encoder, batching, seed, ...
    status: Required[str]  # running, finished, failed or interrupted
    ended: OnErrorOmit[float | None]  # unix seconds
    error: OnErrorOmit[str | None]  # the line that says why the run failed
    pid: Count  # process that wrote the run
    host: Text  # machine of that process
    user: Text  # user who started that process
    advice: OnErrorOmit[AdviceRecord | None]  # choice of batching=auto, which a resumed run keeps
    init_from: OnErrorOmit[InitFromRecord | None]  # the run that it started from, kept for the same purpose
    changes: OnErrorOmit[list[OnErrorOmit[ChangeRecord]]]  # options that changed when the run was resumed


@with_config(STRICT)
class MetricsLine(TypedDict):
    """A line of `metrics.jsonl`."""

    time: float  # unix seconds
    step: int  # updates so far
    epoch: int  # from 1
    # train/loss, train/gradient_norm, train/lr, valid/..., train/seconds and train/tokens so far
    metrics: dict[str, float | None]


class QualityRecord(TypedDict, total=False):
    """The figure that runs are compared by."""

    metric: Required[str]
    unit: Text  # "%", "nats", ...; "" for a plain number; missing in old runs
    higher_is_better: Required[bool]


class TableFile(TypedDict):
    """A table that is too large for `result.json`."""

    file: str  # Parquet, relative to the run's folder
    rows: int


# A list of rows or, if there are many, their file: `runner.tables.detail.read_table` reads either.
Table = list[dict[str, object]] | TableFile


class SpanErrors(TypedDict):
    """Spans by kind of error, such as `boundary`, and the same by type."""

    counts: dict[str, int]
    per_type: Table  # columns: name, and the kinds


ProbabilityBin = TypedDict(
    "ProbabilityBin", {"from": float, "to": float, "count": int, "confidence": float, "accuracy": float}
)
ProbabilityBin.__doc__ = "The predictions whose probability is in a range (0 to 1): mean and accuracy in percent."


class Calibration(TypedDict, total=False):
    """The accuracy of predictions by their probability."""

    ece: Figure  # expected calibration error in percent
    bins: Required[list[ProbabilityBin]]


class Likelihood(TypedDict):
    """Tokens, and how well a language model predicts them; null if not finite."""

    tokens: int
    nll: float | None  # nats per token
    perplexity: float | None


LikelihoodBin = TypedDict(
    "LikelihoodBin", {"from": int, "to": int, "tokens": int, "nll": float | None, "perplexity": float | None}
)
LikelihoodBin.__doc__ = "The `Likelihood` of the tokens at a range of positions or frequencies."


class LikelihoodTable(TypedDict, total=False):
    """The likelihood of tokens in bins."""

    bins: Required[list[LikelihoodBin]]
    apart: OnErrorOmit[dict[str, Likelihood]]  # tokens that have a row of their own, such as <unk>


@with_config(STRICT)
class SplitTables(TypedDict, total=False):
    """The figures of a split that are read by name: the tables of detail and `perplexity`; any may be missing."""

    perplexity: Figure
    confusion: OnErrorOmit[Table]  # pairs of gold and predicted labels: gold, predicted, count
    type_confusion: OnErrorOmit[Table]  # the same for types of span
    per_class: OnErrorOmit[Table]  # name, precision, recall, f1 (percent), support (gold labels or spans)
    per_type: OnErrorOmit[Table]
    errors: OnErrorOmit[SpanErrors]
    calibration: OnErrorOmit[Calibration]
    calibration_in_spans: OnErrorOmit[Calibration]
    by_position: OnErrorOmit[LikelihoodTable]
    by_frequency: OnErrorOmit[LikelihoodTable]


class SplitsRecord(TypedDict, total=False):
    """The figures of the best checkpoint by split."""

    valid: OnErrorOmit[Figures]
    test: OnErrorOmit[Figures]  # missing if the data has no test


class LengthRecord(TypedDict):
    """The timed updates whose longest row has a certain length."""

    longest: int  # tokens, or pieces of words where the model reads these, rounded up to a power of two
    updates: int
    real_tokens: int
    places: int  # real and padded tokens or pieces
    seconds: float


class DataRecord(TypedDict):
    """The counts of a split's rows, tokens and targets."""

    rows: int  # rows in use
    tokens: int  # tokens in use
    targets: int  # targets in use: neither ignored nor cut off
    ignored: int  # targets left out of loss, metrics and counts (task.ignore)
    cut_rows: int  # rows that max_length shortened
    cut_tokens: int  # tokens that it cut off
    cut_targets: int  # targets among these that are not ignored: they count as missed in evaluation
    empty_rows: int  # rows with a text that has no tokens
    unseen_labels: int  # labels that the training set lacks
    unseen_targets: int  # targets with such a label: they count as missed, and have no loss
    unseen: dict[str, int]  # the most frequent of these labels, and their targets


class SpeedRecord(TypedDict, total=False):
    """The speed of training over the timed updates: data, forward, backward and optimiser."""

    real_tokens_per_s: Figure
    pieces_per_s: Figure  # real pieces of words, special ones included; missing if the model reads no pieces
    examples_per_s: Figure
    updates_per_s: Figure
    timed_updates: Count
    warmup_updates: Count  # updates left out at the start
    by_length: OnErrorOmit[list[OnErrorOmit[LengthRecord]]]


class TokensRecord(TypedDict, total=False):
    """Tokens of training, over all epochs."""

    real: Count
    padded: Count
    padding_share: Figure  # share of all positions in memory, 0 to 1
    supervised: Count  # targets that were learned from
    truncated: Count  # tokens cut off the training split, counted once


class PaddingRecord(TypedDict, total=False):
    """Padded tokens, or pieces of words where the model reads these, by cause."""

    spread: Count  # rows shorter than the longest of their batch
    last_batch: Count  # the same, in updates with fewer rows than asked for
    rounding: Count  # widths rounded up


class CharactersRecord(TypedDict, total=False):
    """Characters that were composed to word vectors in training."""

    real: Count
    padded: Count


class SecondsRecord(TypedDict, total=False):
    """Seconds by phase; on a GPU those of training are device seconds."""

    data: Figure
    forward: Figure
    backward: Figure
    optimizer: Figure
    evaluation: Figure
    tracking: Figure
    startup: Figure
    total: Figure


class PeakBatchRecord(TypedDict):
    """The micro-batch with the most positions."""

    rows: int
    width: int
    tokens: int  # real


class MicroBatchRecord(TypedDict):
    """Rows per forward pass; null for whole updates."""

    asked: int | None
    used: int | None
    halved_at: list[int]  # updates, from 1, at which memory ran out; 0 is the rehearsal before training


class MemoryRecord(TypedDict, total=False):
    """Peak memory of training."""

    peak_bytes: Count
    before_training_bytes: Count
    source: Text  # the allocator, or the resident set of the process
    peak_batch: OnErrorOmit[PeakBatchRecord | None]
    micro_batch: OnErrorOmit[MicroBatchRecord]


class EnergyRecord(TypedDict, total=False):
    """Energy that the GPU used in training."""

    joules: Figure
    joules_per_thousand_tokens: Figure
    source: Text


class ArithmeticRecord(TypedDict, total=False):
    """The share of the device's matrix products that training used."""

    flops_per_place: Figure  # forward and backward, per real or padded token
    achieved_flops_per_s: Figure
    device_flops_per_s: Figure  # measured with large square matrices
    share: Figure  # achieved / device, 0 to 1
    dtype: Text


class UpdatesRecord(TypedDict, total=False):
    """The updates of training. Equal counts and digests mean the same rows in every update."""

    count: Required[int]
    epochs: Count
    digest: Required[str]
    dropout: OnErrorOmit[bool]  # true if any dropout is on


class ModelRecord(TypedDict, total=False):
    """The size of the model."""

    parameters: Count  # number of trained parameters; tied ones count once


class ProvenanceRecord(TypedDict, total=False):
    """The code, machine, data and config of a run."""

    git_commit: OnErrorOmit[str | None]  # ends in + if files differ from the commit
    versions: OnErrorOmit[dict[str, str]]  # versions of Python and packages
    device: Text
    cuda: OnErrorOmit[str | None]
    cpu: Text
    kernels: OnErrorOmit[dict[str, object]]  # half-precision kernels of the machine
    threads: Count  # of each rank
    ranks: Count  # processes that trained together
    shard: Text  # what each of them kept a part of: none, or full (docs/ranks.md)
    matmul: Text
    malloc: Text
    host: Text
    system: Text
    jobs: Count  # runs at a time on this machine, by the command that started the run
    load_average: Figure  # load average of the last minute
    data_fingerprint: Text
    config_hash: Text
    comparison_hash: Required[str]  # hash of the config without batching, seed and turn


@with_config(STRICT)
class ResultRecord(TypedDict, total=False):
    """The content of `result.json`, written last: a run with a result is finished."""

    run_id: Required[str]
    name: Text
    task: Required[str]
    dataset: Required[str]
    embedding: Required[str]
    encoder: Required[str]
    batching: Required[str]
    seed: Required[int]
    turn: int  # number among equal runs, from 1; missing in old runs
    sweep_id: OnErrorOmit[str | None]
    experiment: OnErrorOmit[str | None]
    quality: Required[QualityRecord]
    metrics: OnErrorOmit[SplitsRecord]
    # metrics.test of always predicting the most frequent target of the training set
    majority: OnErrorOmit[Figures | None]
    baselines: OnErrorOmit[Mapping[str, OnErrorOmit[Figures]]]  # the same for other simple models, with their `seconds`
    speed: OnErrorOmit[SpeedRecord]
    data: OnErrorOmit[dict[str, OnErrorOmit[DataRecord]]]  # by split
    tokens: OnErrorOmit[TokensRecord]
    padding: OnErrorOmit[PaddingRecord]
    characters: OnErrorOmit[CharactersRecord | None]  # null without character embeddings
    # counts by other parts of the model; missing if there are none
    counters: OnErrorOmit[Mapping[str, Mapping[str, int]]]
    seconds: OnErrorOmit[SecondsRecord]
    memory: OnErrorOmit[MemoryRecord]
    energy: OnErrorOmit[EnergyRecord | None]  # null where it was not measured, as on a CPU
    arithmetic: OnErrorOmit[ArithmeticRecord | None]  # null where no update was timed
    advice: OnErrorOmit[AdviceRecord | None]  # null except with batching=auto
    init_from: OnErrorOmit[InitFromRecord | None]  # null for a run that started with random parameters
    changes: OnErrorOmit[list[OnErrorOmit[ChangeRecord]]]  # options that changed when the run was resumed; mostly empty
    kernel: OnErrorOmit[str | None]  # PyTorch's kernels for a training batch, and its layout
    updates: Required[UpdatesRecord]
    model: OnErrorOmit[ModelRecord]
    # `size` by feature; `oov_rate` by split and feature (share of unknown tokens, 0 to 1); lists of what the model's
    # parts report, such as `vectors` and `characters`
    vocab: OnErrorOmit[Figures]
    # by split: things that the data reader left out or had to decide, and how often; missing if there are none
    notes: OnErrorOmit[Mapping[str, Mapping[str, int]]]
    provenance: Required[ProvenanceRecord]


_OF_SOME_RUNS = ("counters", "notes")
RESULT_KEYS = tuple(key for key in ResultRecord.__annotations__ if key not in _OF_SOME_RUNS)  # keys that every run has
PADDING_CAUSES = tuple(PaddingRecord.__annotations__)
SECONDS_KEYS = tuple(SecondsRecord.__annotations__)

_CANDIDATE = TypeAdapter(CandidateRecord)
_TABLES = TypeAdapter(SplitTables)


def parse(adapter: TypeAdapter[T], text: bytes, where: str) -> T:
    """Return the record in the text of a file or line; `where` names it in messages. Raises HydromelError."""
    try:
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise _damaged(error, where) from None


parse_run = partial(parse, TypeAdapter(RunRecord))
parse_result = partial(parse, TypeAdapter(ResultRecord))
parse_metrics_line = partial(parse, TypeAdapter(MetricsLine))


def parse_tables(figures: Figures) -> SplitTables:
    """Return the tables of detail among the figures of a split; damaged ones are left out."""
    return _TABLES.validate_python(figures)


def parse_candidate(value: object, where: str) -> CandidateRecord:
    """Return a prediction in the parsed content of the file `where`; raises HydromelError if it is damaged."""
    try:
        return _CANDIDATE.validate_python(value)
    except ValidationError as error:
        raise _damaged(error, where) from None


def finite(value: object) -> float | None:
    """Return a number as a float; None for anything else, NaN, infinity, or an integer too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def shown(value: float, unit: str) -> str:
    """Return a figure for the console: to 0.01; to 0.0001 if it is no percentage and below 2, like a correlation."""
    return f"{value:z.{4 if unit != '%' and abs(value) < 2 else 2}f}"


def unbeaten_baselines(result: ResultRecord) -> dict[str, float]:
    """Return the simplest models that the run does not beat, with their figures on test: {"majority": 15.7, ...}."""
    metric, higher = result["quality"]["metric"], result["quality"]["higher_is_better"]
    value = result.get("metrics", {}).get("test", {}).get(metric)
    if not isinstance(value, float | int):
        return {}
    others: dict[str, Mapping[str, object]] = {"majority": result.get("majority") or {}, **result.get("baselines", {})}
    figures = {name: figure for name, other in others.items() if (figure := finite(other.get(metric))) is not None}
    # NaN compares as false: such a run beats nothing
    return {name: figure for name, figure in figures.items() if not (value > figure if higher else value < figure)}


def _damaged(error: ValidationError, where: str) -> HydromelError:
    """Return the error that names the first problem in one line."""
    first = error.errors(include_url=False)[0]
    key, problem = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Input ")
    if first["type"] == "missing":
        return HydromelError(f"{where} is damaged: it has no '{key}'")
    if first["type"] == "json_invalid":
        return HydromelError(f"{where} is damaged: it is not JSON ({problem.removeprefix('Invalid JSON: ')})")
    return HydromelError(f"{where} is damaged: {key and f'{key}='}{quoted(first['input'])} {problem}")
