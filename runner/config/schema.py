"""The options at the top of a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from runner.common.types import NonNegativeInt, PositiveFloat, PositiveInt

Keep = Literal["head", "tail", "both"]
Malloc = Literal["keep", "return"]
Matmul = Literal["torch", "onednn", "tf32"]


def check_root(
    *,
    seed: int,
    turn: PositiveInt,
    repeat: PositiveInt,
    device: Literal["auto", "cpu", "cuda"],
    dtype: Literal["float32", "float64"],
    precision: Literal["float32", "bf16"],
    matmul: Matmul,
    malloc: Malloc,
    threads: PositiveInt | None,
    data_dir: str | None,
    cache_dir: str | None,
    max_length: PositiveInt | None,
    truncate: Keep,
    predictions: bool,
    baselines: bool,
    runs_dir: str,
    resume: str | None,
    plugins: list[str],
    features: dict[str, Any],
    embedding: dict[str, Any],
    encoder: dict[str, Any],
    batching: dict[str, Any],
    optimizer: dict[str, Any],
    schedule: dict[str, Any],
    tracker: dict[str, Any],
    dataset: dict[str, Any],
    task: dict[str, Any],
    train: dict[str, Any],
    sweep: dict[str, Any],
    run_plots: dict[str, Any] | None,
    search: dict[str, Any] | None,
    choices: dict[str, str | None],
) -> None:
    """The top level of a config: its signature is the schema, and calling it does nothing."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The `train` section of the config; configs/train.yaml says what each option does."""

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
