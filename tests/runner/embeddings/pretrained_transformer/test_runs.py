"""Runs with a pretrained transformer: equal updates, resuming, and use without the folder that it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from runner.cli import export
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.inference.trained import Predictor, TrainedModel
from tests.helpers.composed import label_files, pair_files, run, tag_files

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import save_tiny

SMALL = ("encoder=none", "batching.batch_size=4", "train.max_updates=6", "optimizer=adamw", "device=cpu")
EXACT = ("dtype=float64", "embedding.dropout=0", "embedding.inner_dropout=0")


def pretrained(folder: Path, family: str = "bert") -> list[str]:
    return ["embedding=pretrained", f"embedding.path={save_tiny(folder / family, family)}", "embedding.overlap=4"]


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / run_schema.CHECKPOINTS / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


@pytest.mark.parametrize(
    ("files", "options"),
    [
        (tag_files, ["task.head=crf", "embedding.pool=mean"]),
        (label_files, ["task.pooling=first", "embedding.specials=keep"]),
        (
            label_files,
            ["task.pooling=first", "embedding.specials=keep", "embedding.frozen=[all]", "embedding.cache=true"],
        ),
        (pair_files, ["task.pairs=joined"]),
        (pair_files, ["task.pairs=apart"]),
    ],
    ids=["tag", "classify", "cached", "joined", "apart"],
)
def test_strategies_make_the_same_updates(files: Callable[..., list[str]], options: list[str], tmp_path: Path) -> None:
    data = [*files(tmp_path, 24), *pretrained(tmp_path), *SMALL, *EXACT, *options]
    reached = {}
    for strategy in ("size1", "padmask", "packed"):
        folder = tmp_path / "runs" / strategy
        result = run(folder, *data, f"batching={strategy}")
        assert result["updates"]["count"] == 6
        reached[strategy] = parameters(folder)
    for strategy in ("size1", "packed"):
        for name, tensor in reached["padmask"].items():
            torch.testing.assert_close(reached[strategy][name], tensor, rtol=0, atol=1e-9, msg=f"{strategy}: {name}")


def test_a_run_does_not_need_the_folder_of_its_model(tmp_path: Path) -> None:
    options = [*tag_files(tmp_path, 24), *pretrained(tmp_path), *SMALL, "embedding.frozen=[embeddings]"]
    folder = tmp_path / "runs" / "a"
    run(folder, *options, "train.epochs=1")
    with torch.random.fork_rng(devices=()):
        before = TrainedModel.load(folder, torch.device("cpu"), None, [], None).model.state_dict()
    shutil.rmtree(tmp_path / "bert")
    after = TrainedModel.load(folder, torch.device("cpu"), None, [], None).model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    record = json.loads((folder / run_schema.RESULT).read_text(encoding="utf-8"))["vocab"]["pretrained"][0]
    assert record["model"] == "bert"
    assert record["pieces"]["train"] > 24
    shutil.rmtree(folder / run_schema.MODEL_FILES)
    with pytest.raises(HydromelError, match="there is no such folder"):
        Predictor.load(folder, torch.device("cpu"), None, [], None)


def test_an_interrupted_run_goes_on_to_the_same_parameters(tmp_path: Path) -> None:
    options = [*label_files(tmp_path, 24), *pretrained(tmp_path), *SMALL, "train.epochs=9", "batching=packed"]
    whole, resumed = tmp_path / "runs" / "whole", tmp_path / "runs" / "resumed"
    run(whole, *options, "train.max_updates=9")
    run(resumed, *options, "train.max_updates=4")
    shutil.rmtree(tmp_path / "bert")
    run(resumed, *options, "train.max_updates=9")
    assert all(torch.equal(tensor, parameters(resumed)[name]) for name, tensor in parameters(whole).items())


def test_dropout_by_row_needs_a_model_that_runs_packed(tmp_path: Path) -> None:
    options = [*label_files(tmp_path, 24), *pretrained(tmp_path, "mpnet"), *SMALL, "train.row_dropout=true"]
    with pytest.raises(HydromelError, match=r"row_dropout=true: embedding\.backbone draws its dropout for all rows"):
        run(tmp_path / "runs" / "a", *options)
    run(tmp_path / "runs" / "b", *options, "embedding.inner_dropout=0", "train.max_updates=1")


def test_a_model_that_reads_later_words_is_no_language_model(tmp_path: Path) -> None:
    with pytest.raises(HydromelError, match="reads later tokens, which task=lm predicts"):
        run(
            tmp_path / "runs" / "a",
            "task=lm",
            *pretrained(tmp_path),
            "features=[words,forms]",
            *SMALL,
            *lm_files(tmp_path),
        )


def lm_files(folder: Path) -> list[Any]:
    for split in ("train", "valid"):
        (folder / f"{split}.txt").write_text("the cat sat\non a mat\n" * 4, encoding="utf-8")
    return ["dataset=text", f"data_dir={folder}", "dataset.train=train.txt", "dataset.valid=valid.txt"]


LORA = "embedding.lora={rank: 2, alpha: 4, dropout: 0.1, targets: [query, value]}"


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=()):
        return TrainedModel.load(folder, torch.device("cpu"), None, [], None).model.state_dict()


def test_checkpoints_have_adapters_without_the_model_that_they_adapt(tmp_path: Path) -> None:
    options = [*label_files(tmp_path, 24), *pretrained(tmp_path), *SMALL, LORA, "train.epochs=9", "batching=packed"]
    whole, resumed, kept = (tmp_path / "runs" / name for name in ("whole", "resumed", "kept"))
    run(whole, *options)
    run(resumed, *options, "train.max_updates=3")
    run(resumed, *options)
    saved = parameters(whole)
    assert {name for name in saved if "lora" not in name} == {"model.head.linear.weight", "model.head.linear.bias"}
    assert all(torch.equal(tensor, parameters(resumed)[name]) for name, tensor in saved.items())
    run(kept, *options, "embedding.save_base=true")
    assert len(parameters(kept)) > len(saved)
    expected = loaded(whole)
    merged = tmp_path / "merged"
    assert export.main([str(whole), "--format", "transformers", "--output", str(merged)]) == 0
    original = load_file(tmp_path / "bert" / "model.safetensors").keys()
    assert load_file(merged / "model.safetensors").keys() == {name for name in original if "pooler" not in name}
    assert export.main([str(whole), "--format", "transformers", "--output", str(merged)]) == 1
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded(kept).items())
    base = load_file(tmp_path / "bert" / "model.safetensors")
    changed = base | {"embeddings.word_embeddings.weight": base["embeddings.word_embeddings.weight"] + 1}
    save_file(changed, tmp_path / "bert" / "model.safetensors", {"format": "pt"})
    with pytest.raises(HydromelError, match="has other weights than the model that the run started from"):
        loaded(whole)
    shutil.rmtree(tmp_path / "bert")
    with pytest.raises(HydromelError, match="there is no such folder; the run trained adapters or what stands on top"):
        loaded(whole)
    assert len(loaded(kept)) == len(expected)


def test_a_frozen_base_is_left_out_and_may_be_trained_later(tmp_path: Path) -> None:
    options = [*label_files(tmp_path, 24), *pretrained(tmp_path), *SMALL]
    first, second = tmp_path / "runs" / "first", tmp_path / "runs" / "second"
    run(first, *options, "embedding.frozen=[all]", "train.max_updates=2")
    assert [*parameters(first)] == ["model.head.linear.bias", "model.head.linear.weight"]
    result = run(second, *options, f"init_from={first}", "train.max_updates=1")
    assert result["init_from"]["head"] == "kept"
    assert len(parameters(second)) > 10
    save_tiny(tmp_path / "bert", "bert", seed=8)
    with pytest.raises(HydromelError, match=r"lacks the weights of embedding that were not trained"):
        run(tmp_path / "runs" / "third", *options, f"init_from={first}", "train.max_updates=1")
