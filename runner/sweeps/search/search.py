"""Search: draw configs from a space, run each in a separate process, and write the best as a config."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from runner.common.errors import HydromelError, without_credentials
from runner.common.files import write_json, write_text
from runner.components.run_components import Components, Plots
from runner.config.compose import compose_from
from runner.config.hashes import job_hash
from runner.config.instantiate import build
from runner.config.saved import write_config
from runner.config.schema import RunConfig, SearchSettings
from runner.sweeps.jobs import sweep_id
from runner.sweeps.pool import Pool
from runner.sweeps.search.outcome import EndedTrial, Outcome, best_yaml
from runner.sweeps.search.space import Space, Values
from runner.sweeps.search.study import INSTALL, ask, begun, counted, cut_off, open_study, storage_errors
from runner.sweeps.search.trial import Ended, mark_pruned, run_trial
from runner.sweeps.slots import Slot, describe, slots
from runner.terminal.command_line import exit_code
from runner.terminal.progress import Stage, stage

if TYPE_CHECKING:
    from optuna import Study, Trial

log = logging.getLogger(__name__)
STUDY, LOCK, OUTCOME, BEST = "study.db", "search.lock", "search.json", Path("experiment") / "best.yaml"


@dataclass(frozen=True)
class Search:
    """A checked search."""

    id: str  # the sweep id of its runs
    folder: Path  # folder of its runs and results
    overrides: list[str]  # overrides of the command
    folders: list[str]  # folders of further configs
    config: RunConfig  # config of the first trial, which other trials vary
    components: Components  # components of that config
    options: SearchSettings
    space: Space
    metric: str  # name of the metric, measured on valid
    higher: bool  # True if higher values are better

    @classmethod
    def of(cls, overrides: Sequence[str], folders: Sequence[str]) -> Search:
        """Compose and check. Raises HydromelError: a mistake in the config, the search section or the space."""
        config = compose_from(overrides, folders)
        if (options := config.search) is None:
            raise HydromelError("search is null; give search=optuna, or experiment=tune_...")
        if options.trials is None and options.timeout_minutes is None:
            raise HydromelError("search.trials and search.timeout_minutes are both null; give one of them, or both")
        space = Space.of(options.space, config.choices)
        trial = compose_from([*overrides, *options.only_in_trials], folders)
        components = Components.of(trial)
        measures = components.parts.measures
        metric = options.metric or trial.train.metric or measures.main
        measures.check(options.metric, "search.metric")
        search = cls(
            id=sweep_id(config),
            folder=Path(config.runs_dir) / sweep_id(config),
            overrides=list(overrides),
            folders=list(folders),
            config=trial,
            components=components,
            options=options,
            space=space,
            metric=metric,
            higher=measures.scales[metric].higher_is_better,
        )
        for values in space.probes():
            Components.of(search.composed(values))
        return search

    def composed(self, values: Values) -> RunConfig:
        """Return the config of a trial."""
        groups, options = self.space.overrides(values)
        return compose_from([*self.overrides, *self.options.only_in_trials, *groups], self.folders, options)

    @property
    def defaults(self) -> Values | None:
        """The parameters of the first trial in the study; None: it is drawn like the others."""
        if not self.options.begin_with_defaults:
            return None
        return self.space.params(self.space.defaults(self.config))

    def study(self) -> Study:
        """Return the study in its storage; raises HydromelError as `open_study`."""
        url = self.options.storage or f"sqlite:///{self.folder / STUDY}"
        asked = {"config": job_hash(self.config.resolved), "metric": self.metric, "space": str(self.space.dimensions)}
        return open_study(url, self.id, self.options, self.higher, self.config.train.epochs, asked)


def run_search(overrides: Sequence[str], folders: Sequence[str]) -> int:
    """Run the search and return the exit code: 0, 1 (after one line of error), 130 (interrupted; trials are kept)."""
    return exit_code(lambda: _search(overrides, folders))


def _search(overrides: Sequence[str], folders: Sequence[str]) -> int:
    try:
        import optuna
    except ImportError as error:
        raise HydromelError(INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search.of(overrides, folders)
    _ = search.defaults  # checked before the first trial
    plots: Plots | None = (
        build(search.options.plots, "search.plots", {}, search.config.plugins, Plots) if search.options.plots else None
    )
    search.folder.mkdir(parents=True, exist_ok=True)
    storage = without_credentials(search.options.storage or f"{search.folder / STUDY}")
    try:
        with FileLock(search.folder / LOCK, timeout=0), storage_errors(storage):
            return _run(search, search.study(), plots)
    except Timeout:
        raise HydromelError(f"sweep.id={search.id}: another process runs that search; wait for it or stop it") from None


def _run(search: Search, study: Study, plots: Plots | None) -> int:
    options, n_options = search.options, len(search.space.dimensions)
    log.info("search %s: %s on valid, %d options -> %s", search.id, search.metric, n_options, search.folder)
    most_seconds = math.inf if options.timeout_minutes is None else 60 * options.timeout_minutes
    most_trials = math.inf if options.trials is None else options.trials
    began = time.monotonic()
    config = search.config
    pool = Pool(slots("search.jobs", options.jobs, config.sweep.devices, config.device, config.ranks))
    if pool.is_parallel:
        log.info(describe(pool.slots, "search.jobs"))
    asking = threading.Lock()  # held while the study is asked, configs are composed and records delivered

    def work(slot: Slot) -> None:
        while not pool.stopping.is_set():
            with asking:
                bar.done = len(counted(study))
                if len(begun(study)) >= most_trials or time.monotonic() - began >= most_seconds:
                    return
                trial = ask(study, options, search.space, search.defaults)
                bar.detail = _so_far(search, study, trial.number)
            _one_trial(search, study, trial, bar, slot, pool, asking)

    try:
        with stage("search", options.trials) as bar, pool:
            for _ in pool.slots:
                pool.add(work)
    except KeyboardInterrupt:
        _report(search, study, plots)
        log.info("interrupted; continue with sweep.id=%s", search.id)
        raise
    outcome = _report(search, study, plots)
    if outcome.best is None:
        raise HydromelError(f"no trial of {search.id} finished; {search.folder}/trial-*/console.log have the reasons")
    return 0


def _one_trial(
    search: Search, study: Study, trial: Trial, bar: Stage, slot: Slot, pool: Pool, asking: threading.Lock
) -> None:
    from optuna.trial import TrialState

    began = time.monotonic()
    try:
        ended = _ran(search, trial, bar, slot, pool, asking)
    except BaseException:
        with asking:
            cut_off(study, trial.number)
        raise
    trial.set_user_attr("seconds", time.monotonic() - began)
    if ended.error is not None:
        trial.set_user_attr("error", ended.error)
        study.tell(trial, state=TrialState.FAIL)
    elif ended.pruned_at is not None:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, ended.value)
    log.info(EndedTrial.of(study.trials[trial.number], search.space).line(search.metric))


def _so_far(search: Search, study: Study, number: int) -> str:
    """Return the number of a trial that starts and the best figure so far: `trial 3  best f1 71.20`."""
    values = [trial.value for trial in counted(study) if trial.value is not None]
    best = f"  best {search.metric} {(max if search.higher else min)(values):.2f}" if values else ""
    return f"trial {number}{best}"


def _ran(search: Search, trial: Trial, bar: Stage, slot: Slot, pool: Pool, asking: threading.Lock) -> Ended:
    with asking:  # Hydra composes one config at a time
        config = search.composed(search.space.values(trial.params))
    jobs = len(pool.slots)
    config = config.changed(search=None, sweep={"id": search.id, "trial": trial.number, "jobs": jobs})
    folder = search.folder / f"trial-{trial.number:04d}"
    write_config(config, folder)

    stopping = pool.stopping if pool.is_parallel else None
    with stage(f"trial {trial.number}", config.train.epochs, shown=pool.is_parallel) as own:
        shown, so_far = (own, "") if pool.is_parallel else (bar, f"{bar.detail}  ")

        def unpromising(evaluation: int, value: float) -> bool:
            own.done, shown.detail = evaluation, f"{so_far}evaluation {evaluation} {value:.2f}"
            trial.report(value, evaluation)
            return trial.should_prune()

        ended = run_trial(folder, search.metric, config.train.epochs, unpromising, slot, stopping)
    if ended.pruned_at is not None:
        with asking:
            mark_pruned(folder, ended.pruned_at, search.components.tracker)
    return ended


def _report(search: Search, study: Study, plots: Plots | None) -> Outcome:
    """Write the outcome so far, as search.json, best config and plots, and print it."""
    seed, trials = search.options.seed, counted(study)
    outcome = Outcome.of(search.id, search.metric, search.higher, seed, search.space, study, trials)
    write_json(search.folder / OUTCOME, asdict(outcome))
    if outcome.best is not None:
        (search.folder / BEST.parent).mkdir(exist_ok=True)
        best = search.composed(outcome.best.values).resolved
        write_text(search.folder / BEST, best_yaml(outcome, search.overrides, best, search.space))
    if plots is not None:
        plots.draw(search.folder)
    outcome.show()
    if outcome.best is not None:
        log.info("best: hydromel --config-dir %s experiment=best (repeat=5: over five seeds)", search.folder)
    return outcome
