"""The outcome of a search: on the console, as search.json, and its best trial as `experiment/best.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from rich.table import Table

from runner.config.schema import Plain
from runner.sweeps.search.space import Space, at
from runner.terminal.rich_tables import PlainConsole, plain_table

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

_SHOWN = 10  # trials
_FEWEST = 4  # fewest finished trials for an estimate of importance
_ENDED = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
# `plugins` is left out, since a file must not decide which modules are trusted
_NOT_KEPT = ("experiment", "search", "sweep", "resume", "plugins")


@dataclass(frozen=True)
class EndedTrial:
    """A trial of a search that ended: finished, pruned or failed."""

    number: int
    ended: str  # how it ended: a value of `_ENDED`
    value: float | None  # the searched metric; None unless the trial finished
    values: dict[str, object]
    evaluations: list[float]  # the metric at each evaluation that the search read
    seconds: float | None
    error: str | None

    @classmethod
    def of(cls, trial: FrozenTrial, space: Space) -> EndedTrial:
        ended = _ENDED[trial.state.name]
        curve = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
        seconds, error = trial.user_attrs.get("seconds"), trial.user_attrs.get("error")
        value = trial.value if ended == "finished" else None
        return cls(trial.number, ended, value, space.values(trial.params), curve, seconds, error)

    def line(self, metric: str) -> str:
        """Return the trial in a line."""
        what = " ".join(f"{key}={_short(value)}" for key, value in self.values.items())
        if self.ended == "finished":
            figure = f"{metric} {self.value:.2f}"
        elif self.ended == "pruned":
            figure = f"{metric} {self.evaluations[-1]:.2f}, ended at evaluation {len(self.evaluations)}"
        else:
            figure = f"failed: {self.error}"
        return f"trial {self.number:3d}  {figure}  {what}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a search: all trials, in their order.

    Attributes:
        importance: share of each option in the variance of the metric over finished trials; None: see `why_not`.
    """

    id: str
    metric: str
    higher_is_better: bool
    trials: list[EndedTrial]
    best: EndedTrial | None
    importance: dict[str, float] | None
    why_not: str | None

    @classmethod
    def of(
        cls, name: str, metric: str, higher: bool, seed: int, space: Space, study: Study, counted: list[FrozenTrial]
    ) -> Outcome:
        trials = [EndedTrial.of(trial, space) for trial in counted]
        finished = _ranked(trials, higher)
        importance, why_not = None, None
        if len(finished) < _FEWEST:
            why_not = f"{len(finished)} finished trials are too few to estimate importance; {_FEWEST} are needed"
        elif len({trial.value for trial in finished}) == 1:
            why_not = "all finished trials have the same value"
        else:  # fANOVA (Hutter, Hoos, Leyton-Brown 2014), the greatest first; shares sum to 1
            from optuna.importance import FanovaImportanceEvaluator, get_param_importances

            importance = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
        return cls(name, metric, higher, trials, finished[0] if finished else None, importance, why_not)

    def show(self) -> None:
        """Print the best trials as a table, then the importance of options."""
        console = PlainConsole()
        counts = {how: sum(trial.ended == how for trial in self.trials) for how in _ENDED.values()}
        ended = ", ".join(f"{n} {how}" for how, n in counts.items() if n)
        console.print(f"\ntrials: {ended or 'none has ended'}")
        if self.best is not None:
            console.print(_table(self.metric, _ranked(self.trials, self.higher_is_better)[:_SHOWN]))
        if self.importance is not None:
            shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in self.importance.items())
            console.print(f"- share of the variance of {self.metric} by option: {shares}", soft_wrap=True)
        else:
            console.print(f"- importance: {self.why_not}")


def _ranked(trials: list[EndedTrial], higher: bool) -> list[EndedTrial]:
    """Return the finished trials, the best first; of equal ones the earlier comes first."""
    finished = [trial for trial in trials if trial.ended == "finished"]
    return sorted(finished, key=lambda trial: trial.value or 0.0, reverse=higher)


def _table(metric: str, trials: Sequence[EndedTrial]) -> Table:
    keys = list(trials[0].values)
    table = plain_table("trial", f"valid {metric}", "evaluations", *keys, numbers=True)
    table.columns[0].justify, table.collapse_padding = "right", True
    for trial in trials:
        cells = [_short(trial.values[key]) for key in keys]
        table.add_row(str(trial.number), f"{trial.value:.2f}", str(len(trial.evaluations)), *cells)
    return table


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def best_yaml(outcome: Outcome, overrides: Sequence[str], config: Plain, space: Space) -> str:
    """Return the text of an experiment with the best trial's `config`; `overrides` are those of the search command."""
    assert outcome.best is not None
    kept, not_kept = _kept(overrides)
    choices = config["choices"]
    assert isinstance(choices, Mapping)
    keys = list(dict.fromkeys([*kept, *space.dimensions]))
    names = [{f"override /{key}": choices[key]} for key in keys if key in choices]
    base = [choices["experiment"]] if choices.get("experiment") else []
    body = OmegaConf.create({})
    for key in (key for key in keys if key not in choices):
        OmegaConf.update(body, key, at(config, key))
    body.search = None
    OmegaConf.update(body, "sweep.id", f"best-of-{outcome.id}-${{now:%Y%m%d-%H%M%S}}")
    lines = [
        "# @package _global_",
        f"# {outcome.metric} on valid {outcome.best.value:.4f}: trial {outcome.best.number}, the best of "
        f"{len(outcome.trials)} of the search {outcome.id}; test was not used.",
        "# hydromel --config-dir FOLDER experiment=best, where FOLDER contains experiment/best.yaml",
        *(f"# also give: {override}" for override in not_kept),
    ]
    parts = ({"defaults": [*base, *names, "_self_"]}, OmegaConf.to_container(body))
    text = "".join(yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for part in parts)
    return "\n".join([*lines, text])


def _kept(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the keys that the command gave, and its overrides that cannot be written to a file."""
    keys, not_kept = [], []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        section = override.key_or_group.split(".")[0]
        if section == "plugins" or override.is_delete():
            not_kept.append(str(override.input_line))
        elif section not in _NOT_KEPT:
            keys.append(override.key_or_group)
    return keys, not_kept
