"""The energy that a GPU used, by the counter of its driver (NVML, through nvidia-ml-py of the extra `gpu`)."""

from __future__ import annotations

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

    Args:
        device: a device as torch numbers them. NVML numbers all GPUs of the machine, whatever CUDA_VISIBLE_DEVICES is,
            so the device is identified by its UUID.
    """

    def __init__(self, device: torch.device) -> None:
        self._nvml = _nvml() if device.type == "cuda" else None
        self._handle = None if self._nvml is None else _handle(self._nvml, device)

    def joules(self) -> float | None:
        """Return the joules since the driver was loaded, without waiting for the device."""
        if self._nvml is None or self._handle is None:
            return None
        try:
            return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000  # from millijoules
        except self._nvml.NVMLError:
            return None


def _nvml() -> _Nvml | None:
    try:
        import pynvml  # optional: only the extra `gpu` installs it
    except ImportError:
        return None
    nvml: _Nvml = pynvml
    return nvml


def _handle(nvml: _Nvml, device: torch.device) -> object | None:
    try:
        nvml.nvmlInit()
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except nvml.NVMLError:
        return None
