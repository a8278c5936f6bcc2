"""The command `hydromel`: Hydra composes a config, which is run once, as a sweep or as a search.

Nothing slow is imported here, so that help, completion and the message for a mistyped key appear at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runner.cli.train_help import print_help
from runner.common.errors import HydromelError, shortened
from runner.common.files import cannot_write, check_writable, to_json, write_output
from runner.common.imports import importing
from runner.common.run_names import find_run
from runner.common.run_schema import CHECKPOINTS, RUN
from runner.common.seal import folder_is_made_here
from runner.compat.hydra import arguments_parser
from runner.config.arguments import as_overrides
from runner.config.compose import as_written, compose_from, explain, for_hydra, resolve
from runner.config.instantiate import find_plugin
from runner.config.keys import check_keys_of_files
from runner.config.saved import saved_options, with_option
from runner.config.schema import Plain, RunConfig
from runner.experiment.job import process_start, run_job
from runner.sweeps.jobs import SweepJobs
from runner.sweeps.launched import collect, first_line, refuse, run_launched
from runner.sweeps.order import BASIC, Interleave
from runner.terminal.command_line import FULL_ERROR, Parser, exit_code, failed
from runner.terminal.console import outlive_reader, show_messages
from runner.terminal.interruption import interruption
from runner.tracking.run_folder import discard_unbegun

log = logging.getLogger(__name__)
_OF_CONFIGS = HydraException | OmegaConfBaseException | HydromelError
_CONFIG = "train"
_SCHEMA_FLAG = "--schema"
_FOLDERS = ("data_dir", "cache_dir", "runs_dir")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit. Exit codes: 0, 1 (an error, in one line), 130 (interrupted)."""
    if arguments is not None:
        sys.argv[1:] = arguments  # Hydra reads its arguments there
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.exit(exit_code(_show_help))
    if any(argument.partition("=")[0] == _SCHEMA_FLAG for argument in sys.argv[1:]):
        sys.exit(exit_code(_write_schema))
    show_messages()
    outlive_reader()
    wanted = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # Hydra then raises instead of printing many lines
    interruption.heed()
    jobs = SweepJobs()

    composed = False

    def job(config: DictConfig) -> None:
        nonlocal composed
        composed = True
        _restore(wanted)
        _one_job(config, jobs)

    try:
        _check_arguments()
        with jobs:
            hydra.main(version_base="1.3", config_path="pkg://configs", config_name=_CONFIG)(job)()
    except KeyboardInterrupt:
        sweep = (
            jobs.sweep and f"; {len(jobs.finished)} finished run(s) are kept; continue with sweep.id={jobs.sweep.name}"
        )
        if Interleave.launcher not in (BASIC, "joblib"):
            sweep = f"; jobs that were submitted go on, and sweep.id={Interleave.sweep.name} tells later how they ended"
        log.error("interrupted%s", sweep or "")
        sys.exit(130)
    except Exception as error:  # Hydra raises errors of many classes for a config that does not compose
        _restore(wanted)
        if Interleave.launcher != BASIC and not isinstance(error, _OF_CONFIGS):
            failed(f"hydra/launcher={Interleave.launcher}: {first_line(error)}")
            sys.exit(_tell_launched(jobs))
        if composed and not isinstance(error, _OF_CONFIGS | OSError):
            raise
        sys.exit(failed(_line(error)))
    if Interleave.launcher != BASIC:
        sys.exit(_tell_launched(jobs))
    if jobs.search is not None:
        sys.exit(jobs.search())
    if jobs.sweep is not None:
        jobs.tell()
    sys.exit(jobs.code)


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:  # Hydra makes the folder
        return f"{cannot_write(Path(error.filename), error)}; runs_dir, or hydra.run.dir, says where runs are written"
    return str(error) if isinstance(error, HydromelError) else explain(error)


def _tell_launched(jobs: SweepJobs) -> int:
    """Log how the jobs of a launcher have ended, and return the exit code."""
    jobs.sweep, jobs.count = Interleave.sweep, Interleave.jobs
    collect(jobs)
    jobs.tell()
    return jobs.code


def _show_help() -> int:
    print_help(sys.argv[1:])
    return 0


def _write_schema() -> int:
    """Write a JSON schema of the config, so that an editor completes and checks YAML files."""
    parser = Parser(prog="hydromel", description="Write a JSON schema of the config.")
    parser.add_argument(_SCHEMA_FLAG, type=Path, required=True, metavar="FILE", help="file to write; nothing is run")
    file: Path = parser.parse_args().schema
    check_writable(file)
    # imports torch, which the message for a mistyped flag should not wait for
    from runner.config.json_schema import config_schema

    write_output(file, to_json(config_schema()))
    return 0


def _check_arguments() -> None:
    """Raise HydromelError for flags and values that Hydra does not take.

    Hydra itself would print its usage and exit with 2, or end in a traceback.
    """
    # these two are allowed anywhere
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
    parser = arguments_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    overrides = parser.parse_args().overrides
    flags = [argument for argument in sys.argv[1:] if argument not in overrides]
    tell = not any(flag.startswith(("--cfg", "-c")) for flag in flags)  # these print only the config
    if {"-m", "--multirun"} & {*flags} and (data := next((o for o in overrides if re.match("data=.*,", o)), None)):
        log.info(
            "%s names the files of the splits, the same in every run; sweep the options of dataset= to vary the data",
            data,
        )
    sys.argv[1:] = [*flags, *(item for override in as_overrides(overrides, tell) for item in for_hydra(override))]


def _refuse(message: str) -> NoReturn:
    raise HydromelError(f"{message}; flags come before all options; see hydromel train --help")


def _restore(wanted: str | None) -> None:
    os.environ.pop(FULL_ERROR, None)
    if wanted is not None:
        os.environ[FULL_ERROR] = wanted


def _one_job(config: DictConfig, jobs: SweepJobs) -> None:
    hydra_config = HydraConfig.get()
    output, choices = Path(hydra_config.runtime.output_dir), dict(hydra_config.runtime.choices)
    if hydra_config.mode == RunMode.MULTIRUN:
        jobs.sweep, jobs.count = output, Interleave.jobs
        _sweep_job(config, jobs, hydra_config)
        return
    try:
        check_keys_of_files(_folders(hydra_config), choices)
        given = as_written(hydra_config.overrides.task)
        asked = resolve(config, choices, given)
        _check_sweep_options(asked, given)
        if asked.search is not None:
            jobs.search = _search(asked, hydra_config)
            return
        if asked.repeat != 1:
            from runner.sweeps.repeat import run_repeats

            run_repeats(config, choices, given, as_written(hydra_config.overrides.hydra), jobs)
            return
        folder = output
        if asked.resume is not None:
            folder = find_run(asked.resume, Path(asked.runs_dir)) or Path(asked.resume)
        if asked.resume is not None:
            if any(override.startswith("hydra.run.dir=") for override in as_written(hydra_config.overrides.hydra)):
                raise HydromelError(
                    f"hydra.run.dir has no effect with resume={folder}, which continues in its own folder"
                )
            run = resumed(asked, folder, given)
        elif (folder / CHECKPOINTS).exists():  # a run without checkpoints can start again
            raise HydromelError(
                f"{folder} holds a run; continue it with resume={folder}, or give another hydra.run.dir"
            )
        else:
            run = asked.changed(sweep={"id": None})
    except HydromelError as error:
        jobs.code = failed(str(error))
        return
    finally:
        with contextlib.suppress(OSError):  # Hydra created it; it is removed only if it is empty
            output.rmdir()
    jobs.code = run_job(folder, process_start(), run)
    discard_unbegun(folder)


def _check_sweep_options(asked: RunConfig, given: Sequence[str]) -> None:
    """Raise HydromelError for an option of `sweep` that the command, which is no sweep, does not take."""
    if asked.search is None and asked.repeat == 1:
        of_sweep = [override for override in given if override.lstrip("+").startswith("sweep.")]
        for override in set(of_sweep) - {"sweep.id=null"}:
            raise HydromelError(f"{override} is for sweeps (-m), searches and repeat=N; this is one run")
    elif asked.search is not None and asked.sweep.jobs != 1:
        raise HydromelError(
            f"sweep.jobs={asked.sweep.jobs} is for sweeps (-m) and repeat=N; a search takes search.jobs"
        )


def _search(asked: RunConfig, hydra_config: HydraConf) -> Callable[[], int]:
    """Return a function that runs the configured search. Raises HydromelError for options that it does not take."""
    from runner.sweeps.search.search import run_search

    if asked.resume is not None:
        raise HydromelError(f"resume={asked.resume} is for single runs; continue a search with sweep.id=ID")
    if asked.repeat != 1:
        raise HydromelError(f"repeat={asked.repeat}: a search runs each trial once; repeat its best: experiment=best")
    if any(override.startswith("hydra.run.dir=") for override in as_written(hydra_config.overrides.hydra)):
        raise HydromelError(
            "hydra.run.dir has no effect on a search, whose folder is runs_dir/sweep.id; set runs_dir and sweep.id"
        )
    return partial(run_search, as_written(hydra_config.overrides.task), _folders(hydra_config))


def _folders(hydra_config: HydraConf) -> list[str]:
    """Return the folders of further configs that the command names."""
    return [source.path for source in hydra_config.runtime.config_sources if source.schema == "file"]


def resumed(asked: RunConfig, folder: Path, overrides: list[str]) -> RunConfig:
    """Return the config of the run to resume, with the values of the options that the command names.

    `runner.experiment.resumption` lists the options that may change. Relative paths in the command are relative to the
    current directory, those of the run to the directory in which it was started. If another installation made the run,
    the command decides where records are written, not the run.

    Raises:
        HydromelError: the run does not exist or is damaged, or the command names an option that it does not have.
    """
    options = saved_options(folder, asked.plugins)
    if not (folder / RUN).is_file():
        raise HydromelError(f"{folder} has no file {RUN}: the run never started; start it by its own command")
    if not folder_is_made_here(folder):  # a run from elsewhere must not choose where this installation writes
        options |= {key: asked.resolved[key] for key in ("tracker", "runs_dir", "cache_dir")}
        tracker = asked.choices["tracker"]
        log.warning("warning: the run was made by another installation; its records go to tracker=%s", tracker)
    own, choices = set(options), options["choices"]
    assert isinstance(choices, dict)
    for override in overrides:
        key = override.partition("=")[0]
        if key in ("resume", "plugins") or key.startswith(
            "+tracker@"
        ):  # an option inside the node `tracker`, which is also given
            continue
        options = _with_value(options, key, asked.resolved, override)
        if key in _FOLDERS and isinstance(given := options[key], str):
            options[key] = str(Path(given).expanduser().absolute())
        if key == "data_dir":
            options = with_option("data_dir", options[key], options)
        if key == "batching.batch_size" and isinstance(node := options["batching"], dict):
            options["batching"] = with_option("batch_size", node["batch_size"], node)
        if key in asked.choices:
            choices[key] = asked.choices[key]
    # always of this command, never from the saved run
    here = {"resume": str(folder.absolute()), "cache_dir": asked.cache_dir}
    added_since = {key: value for key, value in asked.resolved.items() if key not in own}
    return RunConfig.of(added_since | options | here)


def _with_value(options: Plain, key: str, asked: Plain, override: str) -> dict[str, object]:
    """Return the options with the value, or the node of a group, that `asked` has at a dotted key.

    Raises HydromelError if the options have no such key; `override` is the argument of the command.
    """
    name, _, inner = key.partition(".")
    value, below = asked.get(name), options.get(name)
    if not inner and name in asked:
        return {**options, name: value}
    if (
        not inner
        or not isinstance(value, Mapping)
        or not isinstance(below, Mapping)
        or inner.split(".")[0] not in below
    ):
        raise HydromelError(f"{override}: the run that is resumed has no such option; its values can be changed")
    return {**options, name: _with_value(below, inner, value, override)}


def _tell_mistakes(folders: list[str]) -> None:
    """Check the config of a job for each swept value, before the first job starts, and warn of those that will fail.

    Raises:
        HydromelError: all have the same mistake, which then is none of a swept value.
    """
    samples, Interleave.samples = Interleave.samples, {}
    if len(samples) < 2:
        return
    with importing():
        from runner.components.run_components import Components
    mistakes = {}
    for name, overrides in samples.items():
        try:
            asked = compose_from(overrides, folders)
            for plugin in asked.plugins:
                find_plugin(plugin)
            Components.before_data(asked)
        except HydromelError as error:
            mistakes[name] = str(error)
    if len(mistakes) == len(samples) and len({*mistakes.values()}) == 1:
        raise HydromelError(next(iter(mistakes.values())))
    for name, why in mistakes.items():
        log.warning("warning: a job with %s will fail: %s", shortened(name), why)


def _sweep_job(config: DictConfig, jobs: SweepJobs, hydra_config: HydraConf) -> None:
    """Run one job in a new process, unless this sweep has finished it; a failure is recorded, not raised."""
    overrides = " ".join(as_written(hydra_config.overrides.task))
    number, launched = hydra_config.job.num, hydra_config.runtime.choices["hydra/launcher"] != BASIC
    sweep = jobs.sweep
    assert sweep is not None
    if launched:  # this is another process; submitit may pickle `jobs` once more, to put the job back into the queue
        show_messages(bars=False)
        jobs = SweepJobs()
        jobs.sweep = sweep
    elif hydra_config.job.config_name == _CONFIG:
        try:
            _tell_mistakes(_folders(hydra_config))
        except HydromelError as error:
            sys.exit(failed(str(error)))
    try:
        choices = dict(hydra_config.runtime.choices)
        check_keys_of_files(_folders(hydra_config), choices)
        asked = resolve(config, choices, as_written(hydra_config.overrides.task))
        if asked.resume is not None:
            raise HydromelError(
                f"resume={asked.resume} is for single runs, without -m; continue a sweep with sweep.id=ID"
            )
        if asked.search is not None:
            raise HydromelError("a search takes neither -m nor lists of values; leave them out, or give search=null")
        if asked.repeat != 1:
            if not launched:  # applies to all jobs, so the whole sweep ends
                sys.exit(failed(f"repeat={asked.repeat}: a sweep takes seed=1,2,3 instead"))
            raise HydromelError(f"repeat={asked.repeat}: a sweep takes seed=1,2,3 instead")
    except HydromelError as error:
        if launched:
            refuse(sweep, number, overrides, str(error))
        jobs.note_failure(overrides, str(error), str(error))
        return
    if launched:
        run_launched(jobs, asked, number, overrides, hydra_config.launcher)
        return
    try:
        jobs.add(asked, overrides)
    except HydromelError as error:  # applies to all jobs
        sys.exit(failed(str(error)))


if __name__ == "__main__":
    main()
