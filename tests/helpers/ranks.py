"""Several ranks as children of this process, which has imported everything."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from runner.distributed.environment import LOCAL_RANK, RANK, WORLD
from runner.distributed.ranks import Ranks, joined

_MOST_S = 240.0  # far more than any test takes


def in_ranks(world: int, work: Callable[[Ranks], int | None], said: Path) -> list[int]:
    """Call `work` in `world` processes that train together, and return their exit codes.

    Args:
        said: a folder for what each prints.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    said.mkdir(parents=True, exist_ok=True)
    children = [_start(rank, world, port, work, said) for rank in range(world)]
    codes = []
    for child in children:
        _, status = os.waitpid(child, 0)
        codes.append(os.waitstatus_to_exitcode(status))
    return codes


def _start(rank: int, world: int, port: int, work: Callable[[Ranks], int | None], said: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        file = os.open(said / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        faulthandler.dump_traceback_later(_MOST_S, exit=True, file=2)  # a rank that hangs says where
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ |= {RANK: str(rank), WORLD: str(world), LOCAL_RANK: str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        torch.set_num_threads(1)  # the parent's pool of threads does not survive a fork: work for it would never end
        with joined(world, "cpu") as ranks:
            code = work(ranks) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
