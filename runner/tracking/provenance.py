"""The provenance of a run: code, versions, machine, data, config."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from runner.common.records import ProvenanceRecord
from runner.config.hashes import comparison_hash, config_hash
from runner.config.schema import RunConfig
from runner.profiling.kernels import describe_machine
from runner.profiling.malloc import choose_malloc
from runner.profiling.matmul import choose_matmul

_PACKAGES = ("torch", "numpy", "pyarrow", "hydra-core", "mlflow", "datasets", "seqeval", "hydromel")


def provenance(config: RunConfig, device: torch.device, data_fingerprint: str) -> ProvenanceRecord:
    """Return the `provenance` section of result.json; `data_fingerprint` is a hash of the data set."""
    cuda = device.type == "cuda"
    return {
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "cpu": cpu_name(),
        "kernels": describe_machine(device),
        "threads": torch.get_num_threads(),
        "ranks": config.ranks,
        "shard": config.shard,
        "matmul": choose_matmul(config.matmul),  # chosen again, because the return value is what this machine does
        "malloc": choose_malloc(config.malloc),
        "host": platform.node(),
        "system": platform.platform(),
        "jobs": config.sweep.jobs,
        "load_average": round(os.getloadavg()[0], 2),
        "data_fingerprint": data_fingerprint,
        "config_hash": config_hash(config.resolved),
        "comparison_hash": comparison_hash(config.resolved),
    }


def git_commit() -> str | None:
    """Return the commit of this code, followed by `+` if files were changed since; None outside a checkout."""
    git = ("git", "-C", str(Path(__file__).parent))
    commit = _output_of(*git, "rev-parse", "HEAD")
    changed = _output_of(*git, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changed else commit or None


def cpu_name() -> str:
    """Return the processor's name from `lscpu`, which works on x86 and Arm, unlike /proc/cpuinfo."""
    lines = _output_of("lscpu").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model name:")]
    return next((name for name in names if name not in ("", "-")), platform.processor() or platform.machine())


def _output_of(*command: str) -> str:
    """Return what a program prints, in English; empty if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=os.environ | {"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
