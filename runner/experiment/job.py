"""Run a config in a separate process: `python -m runner.experiment.job FOLDER` runs FOLDER/resolved.yaml.

With `ranks` above 1 this process starts one for each rank, `python -m runner.experiment.job FOLDER CONFIG`, where the
config is in another folder, since that of the run may hold the config of a run that is to be resumed.

The memory, allocator and caches of one run then do not influence the next. A signal (`runner.terminal.interruption`)
and the end of stdin stop a run, whose records so far are kept. Exit codes: 0 finished, 1 bad input (one line on
stderr), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path

from runner.common.bounded import check_contents
from runner.common.errors import HydromelError, missing_kernel, no_kernel, out_of_memory, ran_out
from runner.common.files import CannotWrite, cannot_write
from runner.common.imports import importing, leave_all_at_exit
from runner.common.run_schema import CHECKPOINTS, CONSOLE, PATIENCE_SECONDS, RUN
from runner.common.seal import folder_is_made_here
from runner.config.instantiate import find_plugin
from runner.config.own_data import take_told
from runner.config.saved import write_config, written_config
from runner.config.schema import RunConfig
from runner.distributed.environment import LOST, LostRank, is_first_rank, is_rank
from runner.terminal.command_line import exit_code, failed
from runner.terminal.console import copied_to, outlive_reader, show_messages, show_only_errors
from runner.terminal.interruption import interruption
from runner.tracking.run_folder import read_run

log = logging.getLogger(__name__)
MOST_RANKS_PER_CORE = 4  # more processes would only wait for one another


def process_start() -> float:
    """Return the Unix time at which this process started, so that start-up includes imports (not on Linux: now)."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return time.time()
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def run_job(folder: Path, started: float, config: RunConfig | None = None) -> int:
    """Run a config (None: the one in the folder), and return the exit code; `started` is the program's start."""
    folder = folder.absolute()
    show_messages()
    outlive_reader()
    interruption.heed()
    if is_rank() and not is_first_rank():
        show_only_errors()
        _run(folder, started, config)
        return 0  # the first rank tells how the run ended; another exit code would kill it before it has done so
    try:
        _make_folder(folder)
        with copied_to(folder / CONSOLE, take_told()):
            return _run(folder, started, config)
    except HydromelError as error:
        return failed(str(error))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    check_contents(folder)


def _run(folder: Path, started: float, config: RunConfig | None) -> int:
    try:
        if config is None:
            config = written_config(folder)
        if config.ranks > 1 and not is_rank():
            return _start_ranks(config, folder)
        # both import torch, which a mistyped command does not need
        with importing():
            from runner.distributed.ranks import joined
            from runner.experiment.run import run_experiment

        for plugin in config.plugins:
            # plugins are imported from the current directory, never from one that a saved run names
            find_plugin(plugin)
        try:
            with joined(config.ranks, config.device) as ranks:
                # started by hand, each rank may have made up another name from the time
                folder = Path(ranks.from_first(lambda: str(folder)))
                with working_directory(folder):
                    run_experiment(config, folder, started, ranks)
        except LostRank:
            return LOST
    except CannotWrite as error:
        begun = (folder / RUN).exists()
        return failed(f"{error}; once that is fixed, continue with: hydromel resume={folder}" if begun else str(error))
    except HydromelError as error:
        return failed(str(error))
    except (RuntimeError, MemoryError) as error:
        begun = (folder / RUN).exists()
        kept = f"the records so far are kept in {folder}" if begun else "the run has not started"
        if missing := missing_kernel(error):
            return failed(f"{no_kernel(missing)}; {kept}")
        if not ran_out(error):
            raise
        return failed(f"{out_of_memory(error)}; {kept}")
    except KeyboardInterrupt as error:
        log.error("interrupted (%s)%s", str(error) or "Ctrl+C", _how_to_continue(folder))
        return 130
    return 0


def _start_ranks(config: RunConfig, folder: Path) -> int:
    """Run the config by several ranks on this machine, and return the exit code; raises as `launch`."""
    most = MOST_RANKS_PER_CORE * (os.cpu_count() or 1)
    if config.ranks > most:
        raise HydromelError(f"ranks={config.ranks}: this machine has {os.cpu_count()} cores; use at most {most} ranks")
    from runner.distributed.launch import RankEnded, launch  # imports torch

    with tempfile.TemporaryDirectory(prefix="hydromel-config-") as config_folder:
        write_config(config, Path(config_folder))
        try:
            return launch("runner.experiment.job", [str(folder), config_folder], config.ranks)
        except RankEnded as error:
            raise HydromelError(f"{error}{_how_to_continue(folder)}") from error


def _how_to_continue(folder: Path) -> str:
    """Return the end of the message for a run that was ended from outside."""
    begun = (folder / RUN).exists()
    return f"; continue with: hydromel resume={folder}" if begun else " before the run started"


def working_directory(folder: Path) -> AbstractContextManager[None]:
    """Return a context in the directory where the run in `folder` was started: its relative paths start there.

    A run without a checkpoint stays in the current directory.
    """
    if not (folder / CHECKPOINTS).exists():
        return contextlib.nullcontext()
    directory = read_run(folder).get("cwd", ".")
    if not folder_is_made_here(folder):
        log.warning("warning: the run was made by another installation; relative paths start at %s", Path.cwd())
        return contextlib.nullcontext()
    if Path(directory).is_dir():
        # modules are still imported from the current directory only
        sys.path[:] = [entry or str(Path.cwd()) for entry in sys.path]
        return contextlib.chdir(directory)
    log.warning(
        "warning: the run was started in %s, which does not exist; relative paths start at %s", directory, Path.cwd()
    )
    return contextlib.nullcontext()


def _end_with_parent(stdin: int) -> None:
    """Stop this process like SIGTERM once its parent has died, and kill it if it does not end in time.

    The parent holds the other end of this process's stdin, which closes when the parent dies.

    A pipe works on every system, unlike a signal at the parent's death, and is not missed if the parent dies early.
    """
    os.read(stdin, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, config_folder: str | None = None) -> int:
    """Run the config in `config_folder`, or in the folder of the run, and return the exit code."""
    config = None if config_folder is None else written_config(Path(config_folder))
    return run_job(Path(folder), process_start(), config)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, args=(sys.stdin.fileno(),), daemon=True).start()
    leave_all_at_exit()
    sys.stdin = io.StringIO()  # nothing else may read from the parent
    sys.exit(exit_code(lambda: main(*sys.argv[1:])))
