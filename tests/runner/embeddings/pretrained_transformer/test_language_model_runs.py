"""Runs of task=lm with a pretrained causal model: equal updates, resuming, evaluation and generation."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.inference.evaluation.lines import LineScorer
from runner.inference.evaluation.splits import SplitEvaluation
from runner.inference.generation.generate import GenerationOptions, generated
from runner.inference.generation.language_model import LanguageModel
from runner.inference.trained import TrainedModel, predictor_of
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from tests.helpers.composed import run

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import save_tiny

CPU = torch.device("cpu")
TEXT = "the cat sat on a mat\n\nwalking don't x1\ncats\n" * 3
PROMPTS = ["the cat", "", "walking Zürich", "x1"]


def options(folder: Path, family: str) -> list[str]:
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(TEXT, encoding="utf-8")
    return [
        *("task=lm", "task.tie_weights=true", "embedding=pretrained_lm", "encoder=none", "optimizer=adamw"),
        *("batching=packed", f"embedding.path={save_tiny(folder / family, family, with_head=True)}"),
        *("dataset=text", f"data_dir={folder}", "dataset.train=train.txt", "dataset.valid=valid.txt"),
        *("dataset.test=test.txt", "embedding.overlap=4", "batching.batch_size=4", "device=cpu", "dtype=float64"),
        *("baselines=false", "optimizer.lr=0.01"),
    ]


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / run_schema.CHECKPOINTS / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def test_strategies_make_the_same_updates_with_dropout(tmp_path: Path) -> None:
    data = [*options(tmp_path, "gpt2"), "train.max_updates=3", "train.row_dropout=true"]
    reached = {}
    for strategy in ("size1", "padmask", "packed"):
        run(tmp_path / "runs" / strategy, *data, f"batching={strategy}")
        reached[strategy] = parameters(tmp_path / "runs" / strategy)
    for strategy in ("size1", "packed"):
        for name, tensor in reached["padmask"].items():
            torch.testing.assert_close(reached[strategy][name], tensor, rtol=0, atol=1e-9, msg=f"{strategy}: {name}")


def test_a_run_is_resumed_scored_and_continued_without_the_folder_of_its_model(tmp_path: Path) -> None:
    data = [*options(tmp_path, "mistral"), "train.epochs=9"]
    whole, resumed = tmp_path / "runs" / "whole", tmp_path / "runs" / "resumed"
    result = run(whole, *data, "train.max_updates=8")
    run(resumed, *data, "train.max_updates=3")
    shutil.rmtree(tmp_path / "mistral")
    run(resumed, *data, "train.max_updates=8")
    assert all(torch.equal(tensor, parameters(resumed)[name]) for name, tensor in parameters(whole).items())

    name, figures = SplitEvaluation.load(whole, CPU, None, [], None).measure(None, 3)
    assert name == "test"
    for figure in ("perplexity", "word_perplexity", "bits_per_character", "nll"):
        assert figures[figure] == pytest.approx(result["metrics"]["test"][figure], rel=1e-9)
    trained = TrainedModel.load(whole, CPU, None, [], None)
    model = LanguageModel(trained, "run", allow_unk=False)
    tallies = LineScorer(model, False, 2).score(TEXT.splitlines())
    assert -sum(tally.nats for tally in tallies) == pytest.approx(figures["log_p"], rel=1e-9)
    assert sum(tally.words for tally in tallies) == figures["words"]

    ways = [
        GenerationOptions(max_tokens=6),
        GenerationOptions(max_tokens=6, beam=3, nbest=2),
        GenerationOptions(max_tokens=6, top_k=9, samples=2, seed=3),
    ]
    for way in ways:
        together = generated(model, PROMPTS, way, 32)
        alone = generated(model, PROMPTS, way, 1)
        for prompt, mine, theirs in zip(PROMPTS, together, alone, strict=True):
            assert [each.text for each in mine] == [each.text for each in theirs]
            for each, other in zip(mine, theirs, strict=True):
                assert each.text.startswith(prompt)
                assert each.log_p == pytest.approx(other.log_p, rel=1e-9)
    # greedy: as by reading all tokens again at each step
    greedy = generated(model, ["the cat"], ways[0], 1)[0][0]
    ids, total = model.prompts(["the cat"]).ids["words"].values.tolist(), 0.0
    for _ in range(6):
        log_p = _next(model, ids)
        total += float(log_p.max())
        ids.append(int(log_p.argmax()))
        if ids[-1] == model.end:
            break
    assert greedy.log_p == pytest.approx(total, rel=1e-9)
    with pytest.raises(HydromelError, match="task=lm predicts no labels"):
        predictor_of(trained, "run")
    record = json.loads((whole / run_schema.RESULT).read_text(encoding="utf-8"))
    assert record["vocab"]["pretrained"][0]["model"] == "mistral"
    assert math.isfinite(record["metrics"]["test"]["bits_per_character"])


def _next(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """Return log P of the next token, after all `ids` were read at once."""
    rows = Rows(np.array([len(ids)]), CPU)
    with torch.no_grad():
        vectors, _ = model.model.encode({"words": Ragged(torch.tensor(ids), rows, "packed")}, None)
        log_p = model.output.log_probabilities(vectors.values[-1:])[0]
    return log_p.masked_fill(model.forbidden, -torch.inf)
