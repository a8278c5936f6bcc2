"""Samples of the machine while a run trains: processor, memory, disk, network and GPUs, with MLflow's names.

A thread takes a sample every few seconds and appends it to the run's records, from which trackers get it. A sample
takes about a millisecond, so training is not disturbed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Self

from runner.common.errors import HydromelError
from runner.common.files import append, to_json

log = logging.getLogger(__name__)
_MEGABYTE = 1e6
Sample = Mapping[str, float]


def check_installed(seconds: float | None) -> None:
    """Raise HydromelError if samples are requested (`seconds` is not None) and psutil is not installed."""
    if seconds is None:
        return
    try:
        import psutil  # noqa: F401
    except ImportError as error:
        raise HydromelError(
            f"system_metrics_s={seconds:g} needs psutil: pip install hydromel[system]; or give system_metrics_s=null"
        ) from error


class SystemMonitor:
    """A context in which the machine is sampled every `seconds`; each sample is a `MetricsLine` appended to `path`.

    The step of a line is the number of the sample. With seconds=None nothing is sampled. If the file cannot be
    written, a warning says so and sampling ends.
    """

    def __init__(self, path: Path, seconds: float | None) -> None:
        self._path, self._seconds = path, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="system metrics", daemon=True)

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        samples, step = _samplers(), _lines_in(self._path)
        try:
            while not self._over.wait(self._seconds):
                figures = {f"system/{name}": value for sample in samples for name, value in sample().items()}
                line = {"time": time.time(), "step": step, "epoch": 0, "metrics": figures}
                append(self._path, to_json(line, indent=None).encode())
                step += 1
        except OSError as error:
            log.warning("warning: the machine is no longer sampled: %s: %s", self._path, error.strerror)


def _lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _samplers() -> list[Callable[[], Sample]]:
    import psutil

    psutil.cpu_percent()  # the first call only starts the counting
    start = psutil.net_io_counters()

    def network() -> Sample:
        now = psutil.net_io_counters()
        return {
            "network_receive_megabytes": (now.bytes_recv - start.bytes_recv) / _MEGABYTE,
            "network_transmit_megabytes": (now.bytes_sent - start.bytes_sent) / _MEGABYTE,
        }

    return [_machine, *([network] if start else []), *_gpus()]  # a container may have no network


def _machine() -> Sample:
    import psutil

    memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.sep)
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / _MEGABYTE,
        "system_memory_usage_percentage": 100 * memory.used / memory.total,
        "disk_usage_percentage": disk.percent,
        "disk_usage_megabytes": disk.used / _MEGABYTE,
        "disk_available_megabytes": disk.free / _MEGABYTE,
    }


def _gpus() -> Iterator[Callable[[], Sample]]:
    """Yield a sampler for each GPU, if nvidia-ml-py and a driver are there."""
    try:
        import pynvml
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return

    def gpu(place: int, handle: object) -> Sample:
        figures: dict[str, float] = {}
        with contextlib.suppress(pynvml.NVMLError):
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            figures["memory_usage_percentage"] = 100 * memory.used / memory.total
            figures["memory_usage_megabytes"] = memory.used / _MEGABYTE
        with contextlib.suppress(pynvml.NVMLError):
            figures["utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
        with contextlib.suppress(pynvml.NVMLError):  # NVML's unit is milliwatts
            power, limit = pynvml.nvmlDeviceGetPowerUsage(handle), pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)
            figures["power_usage_watts"], figures["power_usage_percentage"] = power / 1000, 100 * power / limit
        return {f"gpu_{place}_{name}": value for name, value in figures.items()}

    for place, handle in enumerate(handles):
        yield partial(gpu, place, handle)
