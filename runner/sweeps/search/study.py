"""The study: parameters and results of all trials, in a database, so that an interrupted search can continue.

Each trial has a separate sampler, seeded by the search's seed and the trial's number. Its parameters depend only on
these and on the results of earlier trials, whether or not the search was interrupted in between.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from runner.common.errors import HydromelError
from runner.config.schema import SearchSettings
from runner.sweeps.search.space import Space

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

INSTALL = "a search needs optuna; install it: pip install 'hydromel[search]'"
_CUT_OFF, _ASKED, _PLACE = "cut_off", "asked", "place"


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turn any error of the study's database into one line."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, ImportError) as error:  # ImportError: a missing database driver
        reason = str(error.__cause__ or error).splitlines()[0]
        raise HydromelError(f"{where}: the study cannot be read or written ({reason})") from error


def open_study(
    url: str, name: str, options: SearchSettings, higher: bool, epochs: int, asked: Mapping[str, object]
) -> Study:
    """Return the study called `name`, new or of an earlier command, whose interrupted trials will be run again.

    A trial has at most `epochs`. Raises HydromelError if a search with that name `asked` for other options.
    """
    import optuna

    pruner = _pruner(options, epochs)
    study = optuna.create_study(
        storage=url, study_name=name, direction="maximize" if higher else "minimize", pruner=pruner, load_if_exists=True
    )
    before = study.user_attrs.get(_ASKED, asked)
    for key, value in asked.items():
        if before.get(key) != value:
            raise HydromelError(
                f"sweep.id={name}: that search was started with a different {key}; give the same options (only "
                "search.trials, timeout_minutes, sampler and pruner can change), or another id"
            )
    study.set_user_attr(_ASKED, dict(asked))
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        cut_off(study, trial.number)
    return study


def ask(study: Study, options: SearchSettings, space: Space, defaults: Mapping[str, object] | None) -> Trial:
    """Return the next trial: the first has the `defaults`, others are sampled, and an interrupted one is repeated.

    A trial's place is its number among those that count. Trials that still run count, too: TPE keeps away from their
    values (`constant_liar`).
    """
    from optuna.trial import TrialState

    taken = {trial.user_attrs.get(_PLACE, number) for number, trial in enumerate(begun(study))}
    place = next(place for place in itertools.count() if place not in taken)
    if place == 0 and defaults is not None and not study.get_trials(states=(TrialState.WAITING,)):
        study.enqueue_trial(dict(defaults))
    study.sampler = _sampler(options, place)
    trial = study.ask({key: dimension.distribution() for key, dimension in space.dimensions.items()})
    trial.set_user_attr(_PLACE, place)
    return trial


def cut_off(study: Study, number: int) -> None:
    """Mark an interrupted trial as failed. It does not count: the next trial gets the same number and values."""
    from optuna.trial import TrialState

    study.set_user_attr(_CUT_OFF, [*study.user_attrs.get(_CUT_OFF, []), number])
    study.tell(number, state=TrialState.FAIL)


def begun(study: Study) -> list[FrozenTrial]:
    """Return the trials that run, finished, failed or were pruned, in order."""
    from optuna.trial import TrialState

    cut = study.user_attrs.get(_CUT_OFF, [])
    return [trial for trial in study.trials if trial.state != TrialState.WAITING and trial.number not in cut]


def counted(study: Study) -> list[FrozenTrial]:
    """Return the trials that finished, failed or were pruned, in order."""
    return [trial for trial in begun(study) if trial.state.is_finished()]


def _sampler(options: SearchSettings, place: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(np.random.SeedSequence([options.seed, place]).generate_state(1)[0])
    if options.sampler == "random":
        return RandomSampler(seed)
    return TPESampler(seed=seed, n_startup_trials=options.startup_trials)


def _pruner(options: SearchSettings, epochs: int) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if options.pruner == "median":
        # the pruner ends no trial before that step
        return MedianPruner(options.startup_trials, options.warmup_evaluations + 1)
    if options.pruner == "hyperband":
        return HyperbandPruner(min_resource=max(1, options.warmup_evaluations), max_resource=epochs)
    return NopPruner()
