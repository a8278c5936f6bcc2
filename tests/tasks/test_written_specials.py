"""A text that writes `<pad>`, `<unk>` or `<eos>` has these words, never the special ids."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from runner.experiment.run import run_experiment
from tests.helpers.composed import QUIET, run_config

TEXT = {
    "train": "the cat <pad> sat\n<unk> the mat <eos> the\n" * 20,
    "valid": "the <pad> cat\n<eos> new\n",
    "test": "<pad> the mat\nthe <unk> new\n",
}


@pytest.mark.parametrize("cutoffs", ["null", "[4]"])
def test_a_language_model_of_such_a_text_has_finite_figures(tmp_path: Path, cutoffs: str) -> None:
    for split, text in TEXT.items():
        (tmp_path / f"{split}.txt").write_text(text, encoding="utf-8")
    files = (f"dataset.{split}={split}.txt" for split in TEXT)
    options = ["task=lm", "dataset=text", f"data_dir={tmp_path}", *files, "encoder=lstm", "encoder.hidden=8"]
    options += ["train.epochs=1", "features.words.min_count=1", "embedding.size=8", f"task.cutoffs={cutoffs}"]
    (tmp_path / "run").mkdir()
    result = run_experiment(run_config(*QUIET, *options), tmp_path / "run", 0.0)
    figures = [result["metrics"]["test"], result["majority"], *result["baselines"].values()]
    assert len(figures) == 4
    assert all(math.isfinite(item["perplexity"]) for item in figures)
    assert result["vocab"]["oov_rate"]["test"] == {"words": 1 / 6}, "only `new` is unknown, line ends are no words"
