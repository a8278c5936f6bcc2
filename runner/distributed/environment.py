"""The variables by which torchrun, or a program like it, tells a process its rank. Reading them needs no torch."""

from __future__ import annotations

import os

from runner.common.errors import HydromelError

RANK, WORLD = "RANK", "WORLD_SIZE"  # variables of the environment
LOCAL_RANK, LOCAL_WORLD = "LOCAL_RANK", "LOCAL_WORLD_SIZE"  # those of one machine
LOST = 75  # exit code of a rank that stops because another one has ended


class LostRank(HydromelError):
    """Another rank has ended, or its machine cannot be reached. That rank tells the reason."""


def is_rank() -> bool:
    """Return True if this process is one of several that train together."""
    return RANK in os.environ and WORLD in os.environ


def ranks_on_this_machine() -> int:
    """Return the number of ranks that this machine runs, this one included."""
    return int(os.environ.get(LOCAL_WORLD, "1")) if is_rank() else 1


def is_first_rank() -> bool:
    """Return True in the rank that writes the run's folder and the console."""
    return os.environ.get(RANK) == "0"
