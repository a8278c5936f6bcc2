"""The start of several ranks on this machine, by torchrun's agent. Several machines: torchrun or srun by hand."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from runner.common.errors import HydromelError
from runner.distributed.environment import LOST

INTERRUPTED = 130
_ERROR = "error: "
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)  # by the agent, to all ranks


class RankEnded(HydromelError):
    """A rank has ended, and nothing says why."""


def launch(module: str, arguments: Sequence[str], ranks: int) -> int:
    """Run a module in several processes of this machine, wait for all, and return the exit code of the first rank.

    The first rank writes to this console. What the others write is only shown if they end the run.

    Raises:
        RankEnded: a rank was killed, or ended without a reason; the run can be continued.
        HydromelError: a rank other than the first has ended the run, or the processes could not be started.
    """
    with tempfile.TemporaryDirectory(prefix="hydromel-ranks-") as logs, _tied_to_this_process():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id="hydromel",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.1,
            signals_to_handle=",".join(number.name for number in _PASSED_ON),
            logs_specs=DefaultLogsSpecs(logs, redirects=dict.fromkeys(range(1, ranks), Std.ALL)),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except ChildFailedError as error:
            return _exit_code(error.failures, Path(logs))
        except SignalException:
            return INTERRUPTED
        except (RuntimeError, OSError, ValueError) as error:
            raise HydromelError(f"ranks={ranks}: could not be started ({error!s:.200})") from error
    return 0


def _exit_code(failures: dict[int, ProcessFailure], logs: Path) -> int:
    """Return the exit code of the first rank if it has said why the run ended; otherwise raise what another one said.

    Raises:
        RankEnded: a rank was killed, or ended without a reason.
        HydromelError: another rank failed, and has said why.
    """
    codes = {rank: failure.exitcode for rank, failure in sorted(failures.items())}
    for rank, code in codes.items():
        if code < 0 and code != -signal.SIGTERM:  # that signal is the agent's, to the ranks that were left
            raise RankEnded(f"rank {rank} was killed by {signal.Signals(-code).name}")
    if codes.get(0) in (1, INTERRUPTED):
        return codes[0]
    for file in sorted(logs.rglob("stderr.log")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if said := next((line for line in lines if line.startswith(_ERROR)), None):
            raise HydromelError(f"rank {file.parent.name}: {said.removeprefix(_ERROR)}")
    rank, code = next(((rank, code) for rank, code in codes.items() if code != LOST), (0, LOST))
    raise RankEnded(f"rank {rank} ended with code {code}")


@contextlib.contextmanager
def _tied_to_this_process() -> Iterator[None]:
    """Within the context, let processes that are started end with this one: their stdin closes when it dies.

    The agent passes signals on, and its own messages, which take many lines, are not shown.
    """
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    read_end, write_end = os.pipe()
    own = os.dup(0)
    os.dup2(read_end, 0)
    os.close(read_end)
    try:
        yield
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(write_end)
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
