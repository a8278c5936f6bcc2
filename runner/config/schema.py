"""The config as a typed model, built once at the start of a command; modules receive only the sections they need.

Nodes (mappings with `_target_`) stay plain mappings until `runner.components` builds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import ConfigDict, PrivateAttr

from runner.common.types import NonNegativeInt, PositiveFloat, PositiveInt
from runner.config.validation import Section

Node = dict[str, object]  # `_target_`, a dotted path to a class or function, and its options
Plain = Mapping[str, object]  # a config as YAML has it, nothing left to interpolate

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "float64"]
Precision = Literal["float32", "bf16"]
Keep = Literal["head", "tail", "both"]
Malloc = Literal["keep", "return"]
Matmul = Literal["torch", "onednn", "tf32"]


class TrainSettings(Section):
    """The `train` section; configs/train.yaml says what each option does."""

    epochs: PositiveInt
    max_updates: PositiveInt | None
    clip_norm: PositiveFloat | None
    metric: str | None
    patience: PositiveInt | None
    checkpoint_every: PositiveInt | None
    log_every: PositiveInt
    warmup_updates: NonNegativeInt
    eval_batch_size: PositiveInt
    rehearse: bool


class SweepSettings(Section):
    """The `sweep` section: the sweep or search that a run belongs to, if any, and its number among the trials."""

    id: str | int | None
    trial: NonNegativeInt | None = None


class SearchSettings(Section):
    """The `search` section; configs/search/optuna.yaml says what each option does."""

    trials: PositiveInt | None
    timeout_minutes: PositiveFloat | None
    metric: str | None
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "hyperband", "none"]
    startup_trials: PositiveInt
    warmup_evaluations: NonNegativeInt
    seed: NonNegativeInt
    storage: str | None
    begin_with_defaults: bool
    only_in_trials: list[str]
    space: dict[str, object]
    plots: Node | None


class MachineSettings(Section):
    """The options that control how the machine computes."""

    device: Device
    dtype: Dtype
    precision: Precision
    matmul: Matmul
    malloc: Malloc
    threads: PositiveInt | None


class ModelConfig(Section):
    """The part of a saved run's config that its model needs; other keys are ignored.

    Defaults are the behaviour of runs that were saved before the option existed.
    """

    model_config = ConfigDict(extra="ignore")

    task: Node
    dataset: Node
    features: dict[str, Node]
    embedding: Node
    encoder: Node
    metric: Node | None = None
    dtype: Dtype
    max_length: PositiveInt | None
    truncate: Keep = "head"
    malloc: Malloc = "return"
    choices: dict[str, str | None]  # the names that were chosen for the config's groups
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

    seed: int
    turn: PositiveInt
    repeat: PositiveInt
    data_dir: str | None
    cache_dir: str | None
    truncate: Keep
    predictions: bool
    baselines: bool
    runs_dir: str
    resume: str | None
    plugins: list[str]
    batching: Node
    optimizer: Node
    schedule: Node
    tracker: Node
    train: TrainSettings
    sweep: SweepSettings
    run_plots: Node | None
    search: SearchSettings | None

    @property
    def bf16(self) -> bool:
        """True if arithmetic is in bfloat16 (autocast)."""
        return self.precision == "bf16"


def name_of(node: Node) -> str:
    """Return the name of a component in reports: its `name`, or the name of its class."""
    return str(node.get("name") or str(node["_target_"]).rsplit(".", 1)[-1].lower())
