"""Which kernels there are, which ran, and what is computed where one is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runner.common.errors import missing_kernel
from runner.layers.recurrent import recurrence
from runner.layers.recurrent.recurrence import Recurrence
from runner.profiling import kernels
from runner.profiling.kernels import FLOAT32_LSTM, KernelWatch, runs, support
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from tests.helpers.composed import tag_files


@pytest.mark.parametrize(
    ("module", "kernel"),
    [(nn.Linear(4, 4), "matrix products, padded"), (nn.Conv1d(4, 4, 1), "convolution, padded")],
)
def test_the_kernel_is_what_ran(module: nn.Module, kernel: str) -> None:
    with KernelWatch() as watch:
        module(torch.zeros(2, 4, 4))
    assert watch.describe("padded") == kernel


def test_recurrent_kernels_are_told_apart() -> None:
    x = torch.zeros(3, 2, 4)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 1]))
    seen = {}
    for name, given in {"padded": x, "packed": packed}.items():
        lstm = nn.LSTM(4, 4)
        with KernelWatch() as watch:
            lstm(given)
        seen[name] = watch.describe(name)
    assert seen["padded"].removesuffix("padded") != seen["packed"].removesuffix("packed")
    assert seen["packed"] == "RNN cells step by step, packed"


WITHOUT_AVX512 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}  # of x86; elsewhere they change nothing
SAID = "could not create a primitive descriptor for the LSTM forward propagation primitive"


@pytest.fixture
def _fresh() -> Iterator[None]:
    """The trials are made anew, and warnings given anew."""
    support.cache_clear()
    recurrence._warn_of_float32.cache_clear()
    yield
    support.cache_clear()
    recurrence._warn_of_float32.cache_clear()


def fails(message: str, backward: bool = False) -> Callable[[Tensor, bool], Tensor]:
    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            if not backward:
                raise RuntimeError(message)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise RuntimeError(message)

    return lambda x, training: Failing.apply(x)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(("backward", "expected"), [(False, "none"), (True, "inference")])
def test_a_missing_kernel_is_found_by_a_trial(backward: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernels._TRIALS, "lstm", fails(f"{SAID}. Run workload with ONEDNN_VERBOSE=all.", backward))
    assert support("lstm", torch.bfloat16, "cpu") == expected
    assert runs("lstm", torch.bfloat16, "cpu", training=False) is backward
    assert not runs("lstm", torch.bfloat16, "cpu", training=True)


@pytest.mark.usefixtures("_fresh")
def test_an_error_that_nobody_has_seen_costs_no_finished_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another processor may word it otherwise; the record of a run is written after training."""
    monkeypatch.setitem(kernels._TRIALS, "lstm", fails("could not create a primitive"))
    assert kernels.describe_machine(torch.device("cpu"))["bf16"]["lstm"] == "none"


@pytest.mark.parametrize(("times", "warns"), [(0.5, False), (1.2, False), (20.0, True)])
def test_an_arithmetic_without_instructions_is_warned_of(
    times: float, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernels.warn_if_slow.cache_clear()

    def seconds(size: int, device: torch.device, dtype: torch.dtype, repeats: int) -> list[float]:
        return [1.0 if dtype == torch.float32 else times]

    monkeypatch.setattr(kernels, "product_seconds", seconds)
    kernels.warn_if_slow(torch.bfloat16)
    kernels.warn_if_slow(torch.bfloat16)
    output = [record.message for record in caplog.records]
    assert [line.partition(" on this")[0] for line in output] == [
        "bfloat16 products take 20 times as long as float32's"
    ] * warns
    kernels.warn_if_slow.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_a_trial_is_not_seen_by_the_caller_nor_disturbed() -> None:
    state = torch.random.get_rng_state()
    with KernelWatch() as watch, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        actual = support("matmul", torch.bfloat16, "cpu")
    assert actual == "training"
    assert not watch.seen
    assert torch.equal(state, torch.random.get_rng_state())


def test_only_a_missing_kernel_is_called_one() -> None:
    assert missing_kernel(RuntimeError(f"{SAID}. Run workload with environment variable ONEDNN_VERBOSE=all")) == SAID
    assert missing_kernel(RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'"))
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError(SAID), MemoryError()):
        assert not missing_kernel(other)
    with pytest.raises(RuntimeError, match="'Long'") as error:  # a mistake of the model on any machine
        F.softmax(torch.ones(2, 2, dtype=torch.int64), dim=0)
    assert not missing_kernel(error.value)


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [(3, 3), (5, 1, 0, 2)])
def test_an_lstm_without_a_kernel_is_computed_in_float32(
    lengths: tuple[int, ...], reverse: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recurrence, "runs", lambda *asked, **more: False)
    torch.manual_seed(1)
    layer = Recurrence("lstm", 4, 6, reverse)
    x = Ragged(torch.randn(sum(lengths), 4), Rows(np.array(lengths), torch.device("cpu")), "packed")
    expected, _ = layer(x, None)
    half = x.with_values(x.values.bfloat16())  # as the layer below leaves them under autocast
    with KernelWatch() as watch, torch.autocast("cpu", torch.bfloat16):
        got, _ = layer(half, None)
    layer(half.with_values(half.values.float()), None)
    torch.testing.assert_close(got.values, expected.values, rtol=0.02, atol=0.02)
    assert got.values.dtype == torch.float32
    assert FLOAT32_LSTM in watch.describe("packed")
    got.values.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in layer.parameters() if parameter.grad is not None)
    assert sum("compute in float32" in record.message for record in caplog.records) == 1


def test_a_run_in_bfloat16_ends_well_without_avx512(tmp_path: Path) -> None:
    """On an older processor: one line says what is computed in float32, and so does `kernel` in the result."""
    options = [*tag_files(tmp_path), "encoder=lstm", "encoder.hidden=8", "precision=bf16", "train.max_updates=3"]
    command = [sys.executable, "-m", "runner.cli.train", *options, "tracker=none", "run_plots=null", "baselines=false"]
    done = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path / 'run'}", "cache_dir=null"],
        env=os.environ | WITHOUT_AVX512,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text(encoding="utf-8"))
    lacks = result["provenance"]["kernels"]["bf16"]["lstm"] == "none"
    assert (FLOAT32_LSTM in result["kernel"]) is lacks
    assert ("LSTMs compute in float32" in done.stdout + done.stderr) is lacks
