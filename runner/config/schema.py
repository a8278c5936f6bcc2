"""The config as a typed model, built once at the start of a command; modules receive only the sections they need.

Nodes (mappings with `_target_`) stay plain mappings until `runner.components` builds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic_core import PydanticCustomError

from runner.common.class_names import TARGET
from runner.common.types import (
    FilePath,
    Module,
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seconds,
    Seed,
    Text,
    Threads,
    UnicodeForm,
)
from runner.config.validation import Section


def _node(value: object) -> object:
    if not isinstance(value, dict) or not isinstance(value.get(TARGET), str):
        raise PydanticCustomError("node", "Input should be one of its configs by name, or a mapping with _target_")
    return value


# `_target_`, a dotted path to a class or function, and its options
Node = Annotated[dict[str, object], BeforeValidator(_node)]
SweepNumber = Annotated[int, Field(ge=0, lt=2**63)]
Plain = Mapping[str, object]  # a config as YAML has it, nothing left to interpolate
NOTES = ("choices", "given")  # fields on how a config was composed, which are not options

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "float64"]
Precision = Literal["float32", "bf16"]
Keep = Literal["head", "tail", "both"]
Malloc = Literal["keep", "return"]
Shard = Literal["none", "full"]
Matmul = Literal["torch", "onednn", "tf32"]


class TrainSettings(Section):
    """The `train` section; configs/train.yaml says what each option does."""

    epochs: PositiveInt
    max_updates: PositiveInt | None
    clip_norm: PositiveFloat | None
    decay_vectors: bool = True
    row_dropout: bool = False
    metric: Text | None
    patience: PositiveInt | None
    checkpoint_every: PositiveInt | None
    log_every: PositiveInt
    warmup_updates: NonNegativeInt
    eval_batch_size: PositiveInt
    rehearse: bool


class SweepSettings(Section):
    """The `sweep` section: the sweep or search that a run belongs to, if any, and its number among the trials.

    `jobs` and `devices` are those of the command. The config of a search's trial has the search's number of jobs.
    """

    id: Name | SweepNumber | None
    trial: NonNegativeInt | None = None
    jobs: PositiveInt = 1
    devices: Literal["auto"] | Annotated[list[NonNegativeInt], Field(min_length=1)] = "auto"


class SearchSettings(Section):
    """The `search` section; configs/search/optuna.yaml says what each option does."""

    trials: PositiveInt | None
    timeout_minutes: PositiveFloat | None
    metric: Text | None
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "hyperband", "none"]
    startup_trials: PositiveInt
    warmup_evaluations: NonNegativeInt
    seed: Seed
    storage: FilePath | None
    jobs: PositiveInt = 1
    begin_with_defaults: bool
    only_in_trials: list[Text]
    space: dict[str, object]
    plots: Node | None


class MachineSettings(Section):
    """The options that control how the machine computes."""

    device: Device
    dtype: Dtype
    precision: Precision
    matmul: Matmul
    malloc: Malloc
    threads: Threads | None
    ranks: PositiveInt = 1
    shard: Shard = "none"


class ModelConfig(Section):
    """The part of a saved run's config that its model needs; other keys are ignored.

    Defaults reproduce the behaviour of runs that were saved before the option existed.
    """

    model_config = ConfigDict(extra="ignore")

    task: Node
    dataset: Node
    features: Annotated[dict[Name, Node], Field(min_length=1)]
    embedding: Node
    encoder: Node
    metric: Node | None = None
    tokenizer: Node | None = None
    dtype: Dtype
    max_length: PositiveInt | None
    truncate: Keep = "head"
    unicode: UnicodeForm = "none"
    malloc: Malloc = "return"
    choices: dict[Text, Text | None]  # the names that were chosen for the config's groups
    given: list[Text] = Field(default_factory=list)  # options and groups that the command line or a search named
    _resolved: dict[str, object] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, options: Plain, where: str = "") -> Self:
        """Return the typed config of plain values, which it keeps as `resolved`; raises as `Section.of`."""
        config = super().of(options, where)
        config._resolved = dict(options)
        return config

    @property
    def resolved(self) -> dict[str, object]:
        """The plain values of this config, which are saved with a run and hashed."""
        return dict(self._resolved)

    def changed(self, **values: object) -> Self:
        """Return the config with other values at its top level, checked again."""
        return type(self).of({**self._resolved, **values})


class RunConfig(MachineSettings, ModelConfig):
    """The config of a run; configs/train.yaml says what each option does."""

    model_config = ConfigDict(extra="forbid")

    seed: Seed
    turn: PositiveInt
    repeat: PositiveInt
    data_dir: FilePath | None
    cache_dir: FilePath | None
    truncate: Keep
    unicode: UnicodeForm
    predictions: bool
    baselines: bool
    runs_dir: FilePath
    resume: FilePath | None
    init_from: FilePath | None = None
    system_metrics_s: Seconds | None = None
    plugins: list[Module]
    tokenizer: Node
    batching: Node
    optimizer: Node
    schedule: Node
    tracker: Node
    train: TrainSettings
    sweep: SweepSettings
    run_plots: Node | None
    search: SearchSettings | None

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names that a user may give: options, without notes, and the groups that are not options."""
        return [*(name for name in super().option_names() if name not in NOTES), "data", "experiment", "hydra"]

    @property
    def bf16(self) -> bool:
        """True if arithmetic is in bfloat16 (autocast)."""
        return self.precision == "bf16"


def name_of(node: Node) -> str:
    """Return the name of a component in reports: its `name`, or the name of its class."""
    return str(node.get("name") or str(node["_target_"]).rsplit(".", 1)[-1].lower())
