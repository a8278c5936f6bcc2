"""The order of a sweep's jobs: strategies alternate, so that a drift of the machine affects all of them equally."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override

from runner.config.compose import as_written
from runner.sweeps.launched import COUNT, announce

BASIC = "basic"  # the launcher that runs jobs in this process
ORDER = ("turn", "seed", "batching")  # the last varies fastest; other options vary more slowly than these


class Interleave(Callback):
    """A callback that moves the options of `ORDER` to the end: Hydra's basic sweeper varies the last ones fastest.

    All launchers use this order; other sweepers define their own order and are not changed.
    """

    jobs = 0  # number of jobs of this process's sweep; 0: none, or unknown
    launcher = BASIC  # of this process's sweep
    sweep = Path()  # its folder
    samples: Mapping[str, list[str]] = {}  # as `samples_of` its overrides

    def on_multirun_start(self, config: DictConfig, **given: object) -> None:
        """Reorder the values of the named experiment (`params`) and the command (`task`), which the sweeper reads."""
        hydra = config.hydra
        Interleave.launcher, Interleave.sweep = hydra.runtime.choices["hydra/launcher"], Path(hydra.sweep.dir)
        if Interleave.launcher != BASIC:
            announce(Interleave.sweep, Interleave.launcher, config.tracker)
        if hydra.runtime.choices["hydra/sweeper"] != "basic":
            return
        params, task = reordered(dict(hydra.sweeper.params or {}), as_written(hydra.overrides.task))
        with flag_override(hydra, ["readonly", "struct"], False):
            hydra.sweeper.params, hydra.overrides.task = params, task
        overrides = [*(f"{key}={value}" for key, value in params.items()), *task]
        Interleave.jobs = count_jobs(overrides)
        Interleave.samples = samples_of(overrides) if Interleave.jobs else {}
        if Interleave.launcher != BASIC:
            os.environ[COUNT] = str(Interleave.jobs)


def reordered(params: dict[str, object], task: list[str]) -> tuple[dict[str, object], list[str]]:
    """Return the experiment's and the command's overrides, in the order in which they are to be swept.

    The keys of `ORDER`, wherever they were given, become the last overrides of the command.
    """
    keys = [override.key_or_group for override in OverridesParser.create().parse_overrides(task)]
    last = []
    for key in ORDER:
        of_command = [override for override, named in zip(task, keys, strict=True) if named == key]
        last += of_command or [f"{key}={params[key]}" for _ in range(key in params)]
    others = [override for override, named in zip(task, keys, strict=True) if named not in ORDER]
    return {key: value for key, value in params.items() if key not in ORDER}, [*others, *last]


def count_jobs(overrides: list[str]) -> int:
    """Return the number of jobs that Hydra's basic sweeper makes of these overrides; 0 for a glob."""
    parsed = _parsed(overrides)
    swept = [override for override in parsed if override.is_sweep_override()]
    if any(isinstance(override.value(), Glob) or not override.is_discrete_sweep() for override in swept):
        return 0
    return math.prod(len(list(override.sweep_string_iterator())) for override in swept)


def samples_of(overrides: list[str]) -> dict[str, list[str]]:
    """Return the overrides of jobs that together have each swept value: the first job, and one for each further value.

    Their names are the values in which they differ from the first job, whose name is its swept values. The sweep is
    discrete and has no glob.
    """
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in _parsed(overrides)
    ]
    first = [values[0] for values in choices]
    samples = {" ".join(values[0] for values in choices if len(values) > 1): first}
    for place, values in enumerate(choices):
        samples |= {value: [*first[:place], value, *first[place + 1 :]] for value in values[1:]}
    return samples


def _parsed(overrides: list[str]) -> list[Override]:
    """Return overrides as Hydra's basic sweeper takes them: of several for one key the last."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [*{override.get_key_element(): override for override in parsed}.values()]
