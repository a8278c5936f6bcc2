"""The command `hydromel`: Hydra composes a config; a run or a sweep of runs is made of it.

Nothing heavy is imported here, so that help, completion and the message for a mistyped key come at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner.command_line import FULL_ERROR, failed, interrupt
from runner.complaint import explain
from runner.compose import resolve
from runner.errors import HydromelError
from runner.job import process_start, run_job, say
from runner.names import CHECKPOINTS, RESOLVED, RESULT
from runner.provenance_hash import job_hash
from runner.saved_config import write_config

_BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_PATIENCE_SECONDS = 60.0  # for an interrupted job to keep what it did


class Jobs:
    """What came of the jobs of this command, as far as they ran in this process."""

    def __init__(self) -> None:
        self.code = 0
        self.failed: list[str] = []
        self.done = 0
        self.sweep: Path | None = None


def main() -> None:
    """Entry point. Exit codes: 0, 1 (one line says what is wrong), 130 (interrupted)."""
    wanted = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # Hydra then raises instead of printing many lines
    signal.signal(signal.SIGTERM, interrupt)
    jobs = Jobs()

    def job(config: DictConfig) -> None:
        _restore(wanted)
        _one_job(config, jobs)

    try:
        hydra.main(version_base="1.3", config_path="pkg://configs", config_name="train")(job)()
    except (HydraException, OmegaConfBaseException, HydromelError, OSError) as error:
        _restore(wanted)
        sys.exit(failed(explain(error)))
    except KeyboardInterrupt:
        kept = f"; {jobs.done} finished run(s) are kept" if jobs.sweep else ""
        again = f"; go on with sweep.id={jobs.sweep.name}" if jobs.sweep else ""
        print(f"interrupted{kept}{again}", file=sys.stderr)
        sys.exit(130)
    if jobs.sweep is not None:
        _tell_sweep(jobs)
    sys.exit(jobs.code)


def _restore(wanted: str | None) -> None:
    os.environ.pop(FULL_ERROR, None)
    if wanted is not None:
        os.environ[FULL_ERROR] = wanted


def _tell_sweep(jobs: Jobs) -> None:
    assert jobs.sweep is not None
    if jobs.failed:
        print(
            f"error: {len(jobs.failed)} of {len(jobs.failed) + jobs.done} jobs failed ({', '.join(jobs.failed)}); the "
            f"others are kept, and sweep.id={jobs.sweep.name} runs only what is missing",
            file=sys.stderr,
        )
    say(f"compare: hydromel-compare {jobs.sweep}")


def _one_job(config: DictConfig, jobs: Jobs) -> None:
    hydra_config = HydraConfig.get()
    output = Path(hydra_config.runtime.output_dir)
    overrides = list(hydra_config.overrides.task)
    if hydra_config.mode == RunMode.MULTIRUN:
        jobs.sweep = output
        _sweep_job(config, jobs, hydra_config)
        return
    try:
        plain = resolve(config, dict(hydra_config.runtime.choices))
        if plain["resume"] is None:
            folder = output
            if (folder / CHECKPOINTS).exists():  # one that came to nothing may be begun anew
                raise HydromelError(
                    f"{folder} holds a run; go on with it by resume={folder}, or give another hydra.run.dir"
                )
            plain["sweep"] = {"id": None}
            write_config(plain, folder)
        else:
            plain, folder = resumed(plain, overrides)
    except HydromelError as error:
        jobs.code = failed(str(error))
        return
    finally:
        with contextlib.suppress(OSError):  # Hydra made it; it is left where something lies in it
            output.rmdir()
    jobs.code = run_job(folder, process_start(), plain)


def resumed(plain: dict[str, Any], overrides: list[str]) -> tuple[dict[str, Any], Path]:
    """The config of the run to go on with, changed by the values that the command gives.

    Raises:
        HydromelError: no such run, a finished one, or an override that is no plain value of that config.
    """
    folder = Path(plain["resume"])
    if not (folder / RESOLVED).is_file():
        raise HydromelError(f"resume={folder}: that is no run's folder (it has no {RESOLVED})")
    if (folder / RESULT).exists():
        raise HydromelError(f"resume={folder}: that run is finished")
    try:
        saved = OmegaConf.load(folder / RESOLVED)
    except yaml.YAMLError as error:
        raise HydromelError(f"{folder / RESOLVED}: damaged, no YAML ({error})") from error
    OmegaConf.set_struct(saved, True)
    for override in overrides:
        key, _, _ = override.lstrip("+~").partition("=")
        if key in ("resume", "plugins"):
            continue
        if OmegaConf.is_config(OmegaConf.select(saved, key, default=None)) or override[0] in "+~":
            raise HydromelError(f"{override}: resume goes on with the run's own config; only values can be changed")
        value = OmegaConf.select(OmegaConf.from_dotlist([override]), key)
        OmegaConf.update(saved, key, value)
    config = OmegaConf.to_container(saved, resolve=True)
    assert isinstance(config, dict)
    here = {"resume": str(folder), "plugins": plain["plugins"]}  # no file may say which modules are trusted
    return {str(key): value for key, value in config.items()} | here, folder


def _sweep_job(config: DictConfig, jobs: Jobs, hydra_config: Any) -> None:
    """Run one job in a fresh process, or skip it if this sweep has it finished; a failure is noted, not raised."""
    overrides = " ".join(hydra_config.overrides.task)
    try:
        plain = resolve(config, dict(hydra_config.runtime.choices))
        if plain["resume"] is not None:
            raise HydromelError(f"resume={plain['resume']}: a sweep goes on with sweep.id=ID, one run without -m")
        name = f"{plain['batching']['name']}-s{plain['seed']}-{job_hash(plain)[:8]}"
        folder = Path(hydra_config.runtime.output_dir) / name
        if (folder / RESULT).exists():
            say(f"{name}: finished earlier, skipped")
            jobs.done += 1
            return
        say(f"--- {name}: {overrides}")
        write_config(plain, folder)
    except HydromelError as error:
        name, code = overrides, failed(str(error))
    else:
        code = _in_fresh_process(folder)
    if code == 130:
        raise KeyboardInterrupt
    if code == 0:
        jobs.done += 1
        return
    jobs.failed.append(name)
    jobs.code = 1
    if code != 1:
        print(f"error: {name} ended with code {code}", file=sys.stderr)
    if hydra_config.launcher.get("_target_") != _BASIC_LAUNCHER:  # this process's list is not seen by the command
        raise HydromelError(f"{name} failed")


def _in_fresh_process(folder: Path) -> int:
    process = subprocess.Popen([sys.executable, "-m", "runner.job", str(folder)])
    try:
        return process.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:  # a terminal's Ctrl-C has reached the job as well; a signal to this process alone has not
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(timeout=_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        raise


if __name__ == "__main__":
    main()
