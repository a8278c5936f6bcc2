"""The slots of a machine: the GPU and the threads that one of several jobs at a time may use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.common.errors import HydromelError

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"  # variables of the environment
# one of these exists wherever PyTorch finds a GPU: NVIDIA's, that of Windows below Linux, AMD's
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_COUNT = "import torch; print(torch.cuda.device_count())"

Devices = Literal["auto"] | Sequence[int]


@dataclass(frozen=True)
class Slot:
    """The GPU and the number of threads of a job; None: those of this process."""

    gpu: str | None = None
    threads: int | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that a job in this slot is started with."""
        own = {} if self.gpu is None else {VISIBLE: self.gpu}
        if self.threads is not None:
            given = os.environ.get(THREADS, "")
            own[THREADS] = str(min(self.threads, int(given)) if given.isdecimal() and int(given) else self.threads)
        return own


WHOLE = Slot()


def slots(key: str, jobs: int, devices: Devices, device: str, ranks: int = 1) -> list[Slot]:
    """Return a slot for each of `jobs`: a GPU each if there are any, and an equal part of the cores.

    Args:
        key: the option that says how many, for messages.
        devices: numbers of GPUs among those that this process sees; one named twice takes two jobs. auto: all, once.
        device: the option `device` of the jobs.
        ranks: the option `ranks` of the jobs.

    Raises:
        HydromelError: there are fewer GPUs, or on a CPU fewer cores, than jobs; a GPU that does not exist is named; or
            several ranks would share the one GPU of a slot.
    """
    named = None if isinstance(devices, str) else list(devices)
    if named is not None and device == "cpu":
        raise HydromelError(f"sweep.devices={named} names GPUs, which jobs with device=cpu do not use")
    if jobs == 1 and named is None:
        return [WHOLE]
    gpus = [] if device == "cpu" else visible_gpus()
    if named is not None:
        if missing := [number for number in named if number >= len(gpus)]:
            has = f"GPUs 0 to {len(gpus) - 1}" if len(gpus) > 1 else "GPU 0" if gpus else "no GPU"
            raise HydromelError(f"sweep.devices={named}: this machine has {has}, and no number {missing[0]}")
        gpus = [gpus[number] for number in named]
    if gpus and jobs > len(gpus):
        numbers = sorted(list(range(len(gpus)) if named is None else named) * 2)
        raise HydromelError(
            f"{key}={jobs} is more than {_count(len(gpus), 'GPU')}; give {key}={len(gpus)}, or name a GPU for each "
            f"job, such as sweep.devices={numbers}"
        )
    if gpus and ranks > 1:
        raise HydromelError(
            f"{key}={jobs}: each job has one GPU, and ranks={ranks} need one each; give {key}=1 without sweep.devices, "
            "or ranks=1"
        )
    if not gpus and jobs > cores():
        raise HydromelError(
            f"{key}={jobs} is more than the {_count(cores(), 'core')} of this machine; on a CPU each job needs one"
        )
    threads = None if jobs == 1 else max(1, cores() // jobs)
    return [Slot(gpus[number] if gpus else None, threads) for number in range(jobs)]


def describe(slots: Sequence[Slot], key: str) -> str:
    """Return a line on jobs at the same time; `key` is the option that says how many."""
    threads = slots[0].threads or cores()
    gpus = [slot.gpu for slot in slots if slot.gpu is not None]
    where = f" and a GPU ({', '.join(gpus)})" if gpus else ""
    return (
        f"{len(slots)} jobs at a time, each with {_count(threads, 'thread')}{where}; their speeds are not comparable: "
        f"to time runs, give {key}=1"
    )


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them. torch is not imported here."""
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return []
    if (given := os.environ.get(VISIBLE)) is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    counted = subprocess.run([sys.executable, "-P", "-c", _COUNT], capture_output=True, text=True, check=False)
    count = counted.stdout.strip()
    return [str(number) for number in range(int(count))] if count.isdecimal() else []


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
