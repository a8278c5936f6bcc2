"""The command `hydromel`: Hydra composes a config; a run or a sweep of runs is made of it.

Nothing heavy is imported here, so that help, completion and the message for a mistyped key come at once.
"""

from __future__ import annotations

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

from runner.complaint import explain
from runner.errors import HydromelError
from runner.job import FULL_ERROR, failed, process_start, run_job, say
from runner.names import RESOLVED, RESULT
from runner.provenance_hash import config_hash

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
    jobs = Jobs()

    def job(config: DictConfig) -> None:
        _restore(wanted)
        _one_job(config, jobs)

    try:
        hydra.main(version_base="1.3", config_path="pkg://configs", config_name="train")(job)()
    except (HydraException, OmegaConfBaseException, HydromelError) as error:
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
    try:
        plain = resolve(config, dict(hydra_config.runtime.choices))
        if plain["resume"] is not None:
            plain, folder = resumed(plain, list(hydra_config.overrides.task))
        else:
            folder = Path(hydra_config.runtime.output_dir)
    except HydromelError as error:
        if hydra_config.mode == RunMode.MULTIRUN:
            raise
        jobs.code = failed(str(error))
        return
    if hydra_config.mode == RunMode.MULTIRUN:
        jobs.sweep = folder
        _sweep_job(plain, folder, jobs, hydra_config)
    else:
        plain["sweep"] = {"id": None} if plain["resume"] is None else plain["sweep"]
        _write(plain, folder)
        jobs.code = run_job(folder, process_start())


def resolve(config: DictConfig, choices: dict[str, Any]) -> dict[str, Any]:
    """The config as plain values, nothing left to interpolate, with the names that were chosen for its groups."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise HydromelError(explain(error)) from error
    assert isinstance(plain, dict)
    chosen = {str(group): name for group, name in choices.items() if not str(group).startswith("hydra/")}
    return {str(key): value for key, value in plain.items()} | {"choices": chosen}


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
    saved = OmegaConf.load(folder / RESOLVED)
    OmegaConf.set_struct(saved, True)
    for override in overrides:
        key, _, _ = override.lstrip("+~").partition("=")
        if key == "resume":
            continue
        if OmegaConf.is_config(OmegaConf.select(saved, key, default=None)) or override[0] in "+~":
            raise HydromelError(f"{override}: resume goes on with the run's own config; only values can be changed")
        value = OmegaConf.select(OmegaConf.from_dotlist([override]), key)
        OmegaConf.update(saved, key, value)
    config = OmegaConf.to_container(saved, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()} | {"resume": str(folder)}, folder


def _sweep_job(plain: dict[str, Any], sweep: Path, jobs: Jobs, hydra_config: Any) -> None:
    """Run one job in a fresh process, or skip it if this sweep has it finished."""
    name = f"{plain['batching']['name']}-s{plain['seed']}-{config_hash(plain)[:8]}"
    folder = sweep / name
    if (folder / RESULT).exists():
        say(f"{name}: finished earlier, skipped")
        jobs.done += 1
        return
    say(f"--- {name}: {' '.join(hydra_config.overrides.task)}")
    _write(plain, folder)
    code = _in_fresh_process(folder)
    if code == 130:
        raise KeyboardInterrupt
    if code:
        jobs.failed.append(name)
        jobs.code = 1
        if code != 1:
            print(f"error: {name} ended with code {code}", file=sys.stderr)
        if hydra_config.launcher.get("_target_") != _BASIC_LAUNCHER:  # this process's list is not seen by the command
            raise HydromelError(f"{name} failed")
    else:
        jobs.done += 1


def _in_fresh_process(folder: Path) -> int:
    process = subprocess.Popen([sys.executable, "-m", "runner.job", str(folder)])
    try:
        return process.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:  # a terminal's Ctrl-C has reached the job as well; a signal to this process alone has not
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=_PATIENCE_SECONDS)
        raise


def _write(plain: dict[str, Any], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        (folder / RESOLVED).write_text(text, encoding="utf-8")
    except OSError as error:
        raise HydromelError(f"{folder} could not be written: {error.strerror}") from error
