"""Energy by NVML, of which the tests have a made-up one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from runner.common import run_schema
from runner.common.records import EnergyRecord
from runner.experiment import preparation
from runner.profiling.energy import EnergyMeter
from runner.tracking.run_folder import RunFolder
from tests.helpers.composed import run, tag_files

GPU = torch.device("cuda", 0)


class MadeUp(ModuleType):
    """A machine of GPUs with these counters, in millijoules by UUID; None: that GPU has no counter."""

    class NVMLError(Exception):
        pass

    def __init__(self, counters: dict[str, int | None], ready: bool = True) -> None:
        super().__init__("pynvml")
        self.counters, self.ready = counters, ready

    def nvmlInit(self) -> None:
        if not self.ready:
            raise self.NVMLError

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.counters:
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        counter = self.counters[handle]
        if counter is None:
            raise self.NVMLError
        return counter


def meter(monkeypatch: pytest.MonkeyPatch, nvml: MadeUp | None, visible: str = "b") -> EnergyMeter:
    """Of torch's first GPU, which is the one of this UUID."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)  # None: importing it fails
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=visible))
    return EnergyMeter(GPU)


def test_it_reads_the_gpu_that_torch_means(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = MadeUp({"GPU-a": 5000, "GPU-b": 7500})
    read = meter(monkeypatch, nvml)  # as under CUDA_VISIBLE_DEVICES=1: torch's first one is NVML's second
    assert read.joules() == 7.5
    nvml.counters["GPU-b"] = 9000
    assert read.joules() == 9.0


def test_what_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert meter(monkeypatch, None).joules() is None  # not installed
    assert meter(monkeypatch, MadeUp({"GPU-b": 1}, ready=False)).joules() is None  # no driver
    assert meter(monkeypatch, MadeUp({"GPU-a": 1})).joules() is None  # not a GPU that NVML knows
    assert meter(monkeypatch, MadeUp({"GPU-b": None})).joules() is None  # no counter
    assert EnergyMeter(torch.device("cpu")).joules() is None


class Reading:
    """Each reading is so many joules above the one before."""

    def __init__(self, begin: float, step: float) -> None:
        self.last, self.step = begin, step

    def joules(self) -> float:
        self.last += self.step
        return self.last


class Killed(Exception):
    pass


def test_segments_add_up_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*tag_files(tmp_path), "encoder=none", "embedding.size=4", "batching=padmask", "batching.batch_size=16"]
    options += [
        "train.epochs=2",
        "train.checkpoint_every=3",
        "train.log_every=1",
        "predictions=false",
    ]  # updates 3 + 3 + 2, 1 + 3 + 3 + 1
    log = RunFolder.log

    def log_until(self: RunFolder, step: int, *rest: object) -> None:
        if step > 10:
            raise Killed
        log(self, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(preparation, "EnergyMeter", lambda device: Reading(100.0, 2.0))
    monkeypatch.setattr(RunFolder, "log", log_until)
    with pytest.raises(Killed):
        run(tmp_path / "run", *options)
    monkeypatch.setattr(RunFolder, "log", log)
    monkeypatch.setattr(
        preparation, "EnergyMeter", lambda device: Reading(5.0, 0.5)
    )  # another process, another counter
    energy = run(tmp_path / "run", *options)["energy"]
    assert energy["joules"] == 4 * 2.0 + 3 * 0.5  # what the first did behind its last checkpoint is not kept
    written = json.loads((tmp_path / "run" / run_schema.RESULT).read_text(encoding="utf-8"))
    assert set(written["energy"]) == set(EnergyRecord.__annotations__)
    assert energy["joules_per_thousand_tokens"] == pytest.approx(energy["joules"] * 1000 / written["tokens"]["real"])


def test_a_cpu_has_none(tmp_path: Path) -> None:
    options = [*tag_files(tmp_path), "encoder=none", "embedding.size=4", "train.max_updates=2", "predictions=false"]
    assert run(tmp_path / "run", *options)["energy"] is None
