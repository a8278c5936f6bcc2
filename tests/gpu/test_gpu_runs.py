"""Runs on a GPU: what result.json says, the same updates under all strategies, the CPU's losses, and resuming."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.common.records import SECONDS_KEYS
from tests.helpers.composed import label_files, run, tag_files

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
GPU = "device=cuda"
STRATEGIES = ("size1", "padmask", "packed", "timestep")
SMALL = ("train.max_updates=20", "train.epochs=20", "batching.batch_size=8", "embedding.size=8", "baselines=false")
MODELS = {
    "rnn": ["encoder=rnn", "encoder.hidden=8"],
    "gru": ["encoder=bgru", "encoder.hidden=6", "encoder.layers=2"],
    "conv": ["encoder=conv", "encoder.filters=4"],
    "transformer": ["encoder=transformer", "encoder.size=8", "encoder.feedforward=12", "encoder.heads=2"],
}
# in float64: there is no fused attention for that
KERNELS = {"rnn": "cuDNN RNN", "gru": "cuDNN RNN", "conv": "convolution", "transformer": "matrix products"}


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / run_schema.CHECKPOINTS / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def losses(folder: Path) -> list[float]:
    lines = (folder / run_schema.METRICS).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line)["metrics"] for line in lines]
    return [record["train/loss"] for record in records if "train/loss" in record]


@pytest.mark.parametrize("strategy", ["size1", "bucketed", "padmask", "packed"])
def test_the_demo_runs_and_its_record_is_sensible(tmp_path: Path, strategy: str) -> None:
    options = ("experiment=demo", f"batching={strategy}", "train.epochs=1", "train.max_updates=60", "baselines=false")
    result = run(tmp_path / "run", *options, GPU)
    sensible(result)
    assert result["kernel"].startswith("cuDNN RNN"), result["kernel"]
    assert result["metrics"]["test"]["accuracy"] > 30
    assert result["provenance"]["device"] == torch.cuda.get_device_name()


def sensible(result: dict[str, Any]) -> None:
    """Figures that a GPU's run has."""
    seconds, memory, used = result["seconds"], result["memory"], result["arithmetic"]
    for phase in ("forward", "backward", "optimizer", "evaluation"):
        assert seconds[phase] > 0, f"seconds.{phase}={seconds[phase]}"
    assert sum(seconds[phase] for phase in SECONDS_KEYS if phase not in ("total", "startup")) < seconds["total"]
    assert memory["source"] == "cuda allocator"
    assert 0 < memory["before_training_bytes"] < memory["peak_bytes"]
    assert memory["peak_bytes"] < torch.cuda.get_device_properties(0).total_memory
    assert result["speed"]["real_tokens_per_s"] > 0
    assert 0 < used["share"] < 1, used
    assert used["device_flops_per_s"] > 1e11, used
    energy = result["energy"]
    assert energy is None or (energy["joules"] >= 0 and energy["source"] == "NVML"), energy
    assert energy is None or find_spec("pynvml") is not None


@pytest.mark.parametrize("files", [tag_files, label_files], ids=["tag", "classify"])
@pytest.mark.parametrize("model", MODELS)
def test_strategies_that_share_a_plan_make_the_same_updates(tmp_path: Path, files: Any, model: str) -> None:
    data, reached = files(tmp_path, rows=60), {}
    for strategy in STRATEGIES:
        folder = tmp_path / "runs" / strategy
        result = run(folder, *data, *MODELS[model], *SMALL, "dtype=float64", f"batching={strategy}", GPU)
        reached[strategy] = parameters(folder)
        assert strategy == "timestep" or KERNELS[model] in result["kernel"], result["kernel"]
    for strategy in STRATEGIES:
        for name, tensor in reached["padmask"].items():
            torch.testing.assert_close(reached[strategy][name], tensor, rtol=0, atol=1e-8, msg=f"{strategy}: {name}")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("head", ["softmax", "crf"])
def test_losses_are_those_of_a_cpu(tmp_path: Path, model: str, head: str) -> None:
    """In float32: with TF32, which cuDNN takes unless it is told not to, they would be 1e-3 apart."""
    data, results = tag_files(tmp_path, rows=60), []
    for device in ("cpu", "cuda"):
        folder = tmp_path / "runs" / device
        options = (*SMALL, "train.log_every=1", f"task.head={head}", "batching=packed", f"device={device}")
        run(folder, *data, *MODELS[model], *options)
        results.append(losses(folder))
    assert len(results[0]) == 20
    assert results[1] == pytest.approx(results[0], rel=2e-4)


@pytest.mark.parametrize("work", ["tag embedding=word_char task.head=crf", "classify encoder=transformer"])
@pytest.mark.parametrize("strategy", ["padmask", "packed"])
def test_bf16_learns_nearly_the_same(tmp_path: Path, work: str, strategy: str) -> None:
    task, *options = work.split()
    data, results = {"tag": tag_files, "classify": label_files}[task](tmp_path, rows=60), []
    for precision in ("float32", "bf16"):
        folder = tmp_path / "runs" / precision
        more = (f"precision={precision}", f"batching={strategy}", "train.log_every=1", GPU)
        run(folder, *data, *options, *SMALL[:3], "baselines=false", *more)
        results.append(losses(folder))
    assert results[1] == pytest.approx(results[0], rel=0.1, abs=0.05)
    assert results[0] != results[1], "bf16 changed nothing"


@pytest.mark.parametrize("model", ["rnn", "transformer"])
def test_a_run_that_was_cut_goes_on_with_the_devices_random_numbers(tmp_path: Path, model: str) -> None:
    """Dropout draws from the GPU's generator: its state is in a checkpoint."""
    data = tag_files(tmp_path, rows=60)
    options = [
        *data,
        *MODELS[model],
        *SMALL[1:],
        "encoder.dropout=0.3",
        "train.checkpoint_every=3",
        "dtype=float64",
        GPU,
    ]
    run(tmp_path / "whole", *options, "train.max_updates=12")
    with pytest.raises(HydromelError, match="cut"):
        cut(tmp_path / "cut", [*options, "train.max_updates=12"], updates=6)
    torch.cuda.manual_seed_all(99)
    run(tmp_path / "cut", *options, "train.max_updates=12")
    for name, tensor in parameters(tmp_path / "whole").items():
        torch.testing.assert_close(parameters(tmp_path / "cut")[name], tensor, rtol=0, atol=1e-9, msg=name)


def cut(folder: Path, overrides: list[str], updates: int) -> None:
    """A run that fails once it has saved a checkpoint of so many updates."""
    from runner.training import checkpoint

    save = checkpoint.save_checkpoint

    def failing(path: Path, model: Any, state: Any) -> None:
        save(path, model, state)
        if state["progress"]["updates"] == updates:
            raise HydromelError("cut")

    checkpoint.save_checkpoint = failing
    try:
        run(folder, *overrides)
    finally:
        checkpoint.save_checkpoint = save


@pytest.mark.parametrize("strategy", ["padmask", "packed"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_attention_is_a_fused_kernel(tmp_path: Path, precision: str, strategy: str) -> None:
    options = ("encoder=transformer", f"precision={precision}", f"batching={strategy}", *SMALL[:3], "baselines=false")
    result = run(tmp_path / "run", *label_files(tmp_path, rows=60), *options, GPU)
    assert "attention" in result["kernel"], result["kernel"]


def test_dropped_weights_of_a_cell_run(tmp_path: Path) -> None:
    """cuDNN is given weights that are no one block of memory."""
    sensible(run(tmp_path / "run", *tag_files(tmp_path, rows=60), *SMALL[:3], "encoder.weight_drop=0.3", GPU))


def test_auto_chooses(tmp_path: Path) -> None:
    result = run(tmp_path / "run", *tag_files(tmp_path), "batching=auto", "batching.probe_seconds=1", *SMALL, GPU)
    assert result["advice"] is not None
    sensible(result)
