"""The energy that a GPU used, by the counter of its driver (NVML, through nvidia-ml-py of the extra `gpu`)."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import torch

SOURCE = "NVML"


class _Nvml(Protocol):
    """The functions of the module `pynvml` that are used here."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object: ...
    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int: ...


class EnergyMeter:
    """A reader of one device's energy counter; readings are None on a CPU, without NVML, and on GPUs before Volta.

    The counter includes all processes on the GPU, and advances a few times to a few dozen times per second.
    """

    def __init__(self, device: torch.device) -> None:
        self._nvml: _Nvml | None = None
        if device.type != "cuda":
            return
        try:
            import pynvml  # optional: only the extra `gpu` installs it
        except ImportError:
            return
        nvml: _Nvml = pynvml
        # torch numbers the devices in CUDA_VISIBLE_DEVICES, NVML all GPUs of the machine; the UUID identifies them.
        with suppress(nvml.NVMLError):
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            self._nvml = nvml

    def joules(self) -> float | None:
        """Return the joules since the driver was loaded, without waiting for the device."""
        if self._nvml is None:
            return None
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000  # from millijoules
        except self._nvml.NVMLError:
            return None
