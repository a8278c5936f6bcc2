"""Energy that a GPU took, by the counter of its driver (NVML, through nvidia-ml-py of the extra `gpu`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

SOURCE = "NVML"


class EnergyMeter:
    """Reads the counter of one device; where there is none, it says so by None: a CPU, no NVML, a GPU before Volta.

    The counter is that of the whole GPU, whoever uses it, and steps some times to some ten times a second.

    Args:
        device: as torch numbers them. NVML numbers all GPUs of the machine, whatever CUDA_VISIBLE_DEVICES says, so the
            device is asked for by its UUID.
    """

    def __init__(self, device: torch.device) -> None:
        self._nvml = _nvml() if device.type == "cuda" else None
        self._handle = None if self._nvml is None else _handle(self._nvml, device)

    def joules(self) -> float | None:
        """Since the driver was loaded. It does not wait for what the device has still to do."""
        if self._nvml is None or self._handle is None:
            return None
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000  # of millijoules
        except self._nvml.NVMLError:
            return None


def _nvml() -> Any | None:
    try:
        return import_module("pynvml")
    except ImportError:
        return None


def _handle(nvml: Any, device: torch.device) -> Any | None:
    try:
        nvml.nvmlInit()
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except nvml.NVMLError:
        return None
