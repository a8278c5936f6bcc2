"""The `search` section of the config; configs/search/optuna.yaml says what each option does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from runner.common.errors import HydromelError
from runner.common.types import NonNegativeInt, PositiveFloat, PositiveInt
from runner.config.instantiate import check_options


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
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
    space: dict[str, Any]
    plots: dict[str, Any] | None

    @classmethod
    def of(cls, section: dict[str, Any]) -> SearchOptions:
        """Raises HydromelError: an unknown, missing or ill-typed option, or no budget."""
        check_options(cls, section, "search")
        options = cls(**section)
        if options.trials is None and options.timeout_minutes is None:
            raise HydromelError("search.trials and search.timeout_minutes are both null; give one of them, or both")
        return options
