"""Strategies that share a plan make the same updates, and evaluation says the same however it is batched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.common.errors import HydromelError
from tests.helpers.composed import label_files, run, tag_files
from tests.helpers.metrics import assert_same_metrics

UPDATES = 20  # more than an epoch
QUICK = ("dtype=float64", "baselines=false", "predictions=false")
EXACT = (*QUICK, "train.epochs=2", f"train.max_updates={UPDATES}", "batching.batch_size=8", "embedding.size=8")


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "checkpoints" / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


MODELS = {
    "rnn": ["encoder=rnn", "encoder.hidden=8"],
    "gru": ["encoder=bgru", "encoder.hidden=6", "encoder.layers=2"],
    "conv": ["encoder=conv", "encoder.filters=4"],
    "transformer": ["encoder=transformer", "encoder.size=8", "encoder.feedforward=12", "encoder.heads=2"],
}


@pytest.mark.parametrize("files", [tag_files, label_files], ids=["tag", "classify"])
@pytest.mark.parametrize("model", MODELS)
def test_size1_padmask_packed_and_timestep_reach_the_same_parameters(tmp_path: Path, files: Any, model: str) -> None:
    data = files(tmp_path)
    results, reached = {}, {}
    for strategy in ("size1", "padmask", "packed", "timestep"):
        folder = tmp_path / "runs" / strategy
        results[strategy] = run(folder, *data, *MODELS[model], *EXACT, f"batching={strategy}")
        reached[strategy] = parameters(folder)
        assert results[strategy]["updates"]["count"] == UPDATES
    for strategy in ("size1", "packed", "timestep"):
        assert results[strategy]["updates"]["digest"] == results["padmask"]["updates"]["digest"]
        for name, tensor in reached["padmask"].items():
            torch.testing.assert_close(reached[strategy][name], tensor, rtol=0, atol=1e-9, msg=f"{strategy}: {name}")


def test_weights_of_labels_smoothing_and_hidden_layers_change_no_update(tmp_path: Path) -> None:
    learned = ["task.label_weights=balanced", "task.label_smoothing=0.1", "task.hidden=[5]"]
    data, reached = label_files(tmp_path), {}
    for strategy in ("padmask", "size1", "packed"):
        folder = tmp_path / "runs" / strategy
        run(folder, *data, *MODELS["conv"], *EXACT, *learned, f"batching={strategy}")
        reached[strategy] = parameters(folder)
    assert {"model.head.hidden.linears.0.weight"} < reached["padmask"].keys()
    for strategy in ("size1", "packed"):
        for name, tensor in reached["padmask"].items():
            torch.testing.assert_close(reached[strategy][name], tensor, rtol=0, atol=1e-9, msg=f"{strategy}: {name}")


def test_bucketed_makes_other_updates_and_unmasked_another_model(tmp_path: Path) -> None:
    data = tag_files(tmp_path)
    results = {}
    for strategy in ("padmask", "bucketed", "unmasked"):
        few = [] if strategy == "padmask" else ["batching.plan.buckets=3"]
        options = (*MODELS["rnn"], *EXACT, f"batching={strategy}", *few)
        results[strategy] = run(tmp_path / "runs" / strategy, *data, *options)
    assert results["bucketed"]["updates"]["digest"] != results["padmask"]["updates"]["digest"]
    assert results["bucketed"]["tokens"]["padded"] < results["padmask"]["tokens"]["padded"] / 2
    first = [parameters(tmp_path / "runs" / name) for name in ("bucketed", "unmasked")]
    assert any(not torch.allclose(first[0][name], first[1][name], atol=1e-6) for name in first[0])


@pytest.mark.parametrize("files", [tag_files, label_files], ids=["tag", "classify"])
def test_figures_do_not_depend_on_evaluation_batches_or_layout(tmp_path: Path, files: Any) -> None:
    data = files(tmp_path)
    figures = []
    for number, (strategy, size) in enumerate([("padmask", 1), ("padmask", 7), ("padmask", 500), ("packed", 7)]):
        options = (*QUICK, "train.epochs=2", f"train.eval_batch_size={size}", f"batching={strategy}")
        figures.append(run(tmp_path / "runs" / str(number), *data, *MODELS["rnn"], *options)["metrics"])
    assert figures[0]["test"]["accuracy"] > 50
    for other in figures[1:]:
        assert_same_metrics(other, figures[0])


@pytest.mark.parametrize("unit", ["line", "stream"])
def test_perplexity_does_not_depend_on_evaluation_batches(tmp_path: Path, unit: str) -> None:
    for split in ("train", "valid", "test"):
        text = "\n".join("the cat sat on the mat . " * (1 + number % 5) for number in range(40))
        (tmp_path / f"{split}.txt").write_text(text + "\n\n", encoding="utf-8")
    data = ["task=lm", "dataset=text", f"data_dir={tmp_path}", "encoder=lstm", "encoder.hidden=8", *QUICK]
    data += [f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")]
    data += [f"task.unit={unit}", "train.epochs=2"]
    strategies = ["padmask", "packed"] if unit == "line" else ["stream", "stream batching.layout=packed"]
    results = []
    for number, (strategy, size) in enumerate((s, n) for s in strategies for n in (1, 5, 100)):
        batching = f"batching={strategy}".split()
        options = (*data, *batching, "batching.batch_size=4", f"train.eval_batch_size={size}")
        results.append(run(tmp_path / "runs" / str(number), *options)["metrics"]["test"]["perplexity"])
    assert results == pytest.approx([results[0]] * len(results), rel=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_dropout_by_row_is_the_same_under_every_strategy(tmp_path: Path, model: str) -> None:
    dropout = [f"{key}=0.4" for key in ("embedding.dropout", "encoder.dropout", "task.dropout")]
    data, reached = tag_files(tmp_path), {}
    for strategy, by_row in (("padmask", True), ("size1", True), ("packed", True), ("unseeded", False)):
        folder = tmp_path / "runs" / strategy
        name = strategy if by_row else "padmask"
        options = [*dropout, "train.max_updates=8", f"train.row_dropout={by_row}", f"batching={name}"]
        run(folder, *data, *MODELS[model], *EXACT, *options)
        reached[strategy] = parameters(folder)
    for strategy in ("size1", "packed"):
        for name, tensor in reached["padmask"].items():
            torch.testing.assert_close(reached[strategy][name], tensor, rtol=0, atol=1e-9, msg=f"{strategy}: {name}")
    assert any(not torch.equal(reached["unseeded"][name], tensor) for name, tensor in reached["padmask"].items())


def test_dropout_by_row_is_refused_where_it_cannot_be_drawn_by_row(tmp_path: Path) -> None:
    options = ["encoder=lstm", "encoder.hidden=4", "encoder.weight_drop=0.2", "train.row_dropout=true"]
    with pytest.raises(
        HydromelError, match=r"train.row_dropout=true: encoder.\S*weight_drop draws its dropout for all"
    ):
        run(tmp_path / "run", *tag_files(tmp_path), *options)
