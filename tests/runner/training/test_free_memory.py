"""The limit of memory on a CPU: what does not fit fails as on a GPU, instead of the system ending the run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

from runner.common.errors import HydromelError, ran_out
from runner.training import free_memory
from tests.helpers.composed import run, tag_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the limit")
MIB = 2**20


def test_more_than_is_free_is_refused_only_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 64 * MIB)
    with free_memory.within_free_memory():
        torch.empty(32 * MIB, dtype=torch.uint8)
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            torch.empty(512 * MIB, dtype=torch.uint8)
        assert ran_out(caught.value)
    torch.empty(512 * MIB, dtype=torch.uint8)


def test_what_is_free_is_what_the_system_says_or_less_in_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = free_memory.free_bytes()
    assert free is not None
    assert 64 * MIB < free < 2**50
    own = tmp_path / "slurm" / "job"
    own.mkdir(parents=True)
    for folder, most, used in ((tmp_path, "max", 0), (tmp_path / "slurm", 100 * MIB, 40 * MIB), (own, "max", 0)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.stat").write_text(f"anon {used}\nfile 7\n")
    read = Path.read_text

    def text(path: Path, encoding: str | None = None) -> str:
        return "1:cpu:/\n0::/slurm/job\n" if str(path) == "/proc/self/cgroup" else read(path, encoding)

    monkeypatch.setattr(free_memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(Path, "read_text", text)
    assert free_memory.free_bytes() == 60 * MIB


def test_the_rehearsal_halves_what_does_not_fit_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sentence(words: int) -> str:
        return "\n".join(f"w{place % 7}\tO" for place in range(words))

    options = tag_files(tmp_path)
    # 64 rows of 100 words need some 100 MiB of activations
    (tmp_path / "train.conll").write_text("\n\n".join([sentence(100)] * 64) + "\n", encoding="utf-8")
    options += ["encoder=conv", "encoder.filters=300", "embedding.size=300", "batching=padmask", "device=cpu"]
    options += ["batching.batch_size=64", "train.max_updates=1", "dataset.span_scheme=null"]
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 40 * MIB)
    with caplog.at_level(logging.WARNING):
        result = run(tmp_path / "run", *options)
    assert "out of memory at the rehearsal before training; continuing with micro-batches of" in caplog.text
    assert 1 <= result["memory"]["micro_batch"]["used"] < 64
    # a row of 60,000 words has vectors of 69 MiB
    (tmp_path / "train.conll").write_text(f"{sentence(60_000)}\n\n{sentence(2)}\n", encoding="utf-8")
    with pytest.raises(HydromelError, match=r"^out of memory at the rehearsal before training with one row at once"):
        run(tmp_path / "none", *options)
