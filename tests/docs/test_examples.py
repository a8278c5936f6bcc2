"""The plugins of docs/extending.md work as the page says, and the page shows them as they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runner.cli import sync
from runner.common.records import unbeaten_baselines
from tests.helpers.composed import tag_files
from tests.helpers.contract import check_contract

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "docs" / "examples"
BIN = Path(sys.executable).parent  # not python -m, which looks in the working directory first
FILES = [path for path in sorted(EXAMPLES.rglob("*")) if path.suffix in (".py", ".yaml") and path.name != "__init__.py"]


def command(folder: Path, name: str, *arguments: str) -> str:
    """Run a command in `folder`, where the examples are copied to, and return what it prints."""
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    environment = {**os.environ, "HYDROMEL_CACHE": str(folder / "cache")}
    done = subprocess.run([BIN / name, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def hydromel(folder: Path, *arguments: str, run: str = "run") -> dict[str, Any]:
    """Train in `folder` and return the result of the run."""
    options = ["plugins=[my_parts]", f"hydra.run.dir={run}", "threads=1", "run_plots=null", *arguments]
    command(folder, "hydromel", "--config-dir", "my_configs", *options)
    result: dict[str, Any] = json.loads((folder / run / "result.json").read_text(encoding="utf-8"))
    return result


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_page_shows_each_file_as_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").strip() in PAGE
    assert f"`{path.relative_to(ROOT)}`" in PAGE


def test_the_page_names_what_there_is() -> None:
    assert len(FILES) == 16
    for path in re.findall(r"`((?:runner|tasks|reporting|configs)/[\w/]+\.(?:py|yaml))`", PAGE):
        assert (ROOT / path).is_file(), path


def test_encoder_strategy_tracker_and_format_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    words = {"NOUN": ["dog", "cat"], "VERB": ["barks", "sleeps"], "DET": ["the", "a"]}
    lines = []
    for _ in range(200):
        tags = rng.choice(list(words), size=rng.integers(1, 12))
        lines.append(" ".join(f"{rng.choice(words[str(tag)])}/{tag}" for tag in tags))
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts = ["encoder=mean_context", "batching=short_first", "tracker=tsv", "dataset=slash_tags", "task=tag"]
    result = hydromel(tmp_path, *parts, "data_dir=.", "dataset.train=train.txt", "train.epochs=4", "optimizer.lr=0.01")
    assert result["metrics"]["test"]["accuracy"] > 95
    assert (result["encoder"], result["batching"]) == ("mean_context", "short_first")
    (line,) = (tmp_path / "results.tsv").read_text(encoding="utf-8").splitlines()
    assert line.split("\t")[2:] == ["test accuracy", str(result["metrics"]["test"]["accuracy"])]

    (tmp_path / "results.tsv").unlink()
    monkeypatch.chdir(tmp_path)
    code = sync.main(["run", "--plugins", "my_parts"])
    assert (code, capsys.readouterr().out) == (0, "run: delivered\n1 runs: 1 delivered\n")
    assert (tmp_path / "results.tsv").read_text(encoding="utf-8") == f"{line}\n"
    assert sync.main(["run"]) == 1
    assert "my_parts.tracker.TsvTracker: not allowed in a saved run; allowed under tracker" in capsys.readouterr().err


def test_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("readLines2 = x.IOError\n" * 30, encoding="utf-8")
    options = [
        "task=lm",
        "dataset=text",
        "dataset.train=train.txt",
        "encoder=conv",
        "encoder.filters=8",
        "tracker=none",
    ]
    result = hydromel(
        tmp_path, *options, "data_dir=.", "train.epochs=1", "tokenizer=identifier_parts", "baselines=false"
    )
    vocabs = json.loads((tmp_path / "run" / "vocabs.json").read_text(encoding="utf-8"))
    assert sorted(vocabs["words"]["strings"]) == sorted(["read", "Lines", "2", "=", "x", ".", "IOError"])
    assert result["metrics"]["test"]["perplexity"] > 1
    symbols = "from my_parts.tokenizer import IdentifierParts as P; import pyarrow as pa"
    shown = f"{symbols}; print(P(symbols=False).spans(pa.array(['aB c_1'])).tokens().to_pylist())"
    done = subprocess.run([sys.executable, "-c", shown], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[['a', 'B', 'c', '1']]"


def test_the_embedding_reports_and_counts(tmp_path: Path) -> None:
    options = ["task=tag", "embedding=hashed", "encoder=conv", "encoder.filters=20", "train.epochs=1", "tracker=none"]
    result = hydromel(tmp_path, *options, "embedding.dropout=0.1")
    assert result["embedding"] == "hashed"
    (entry,) = result["vocab"]["hashed"]
    assert 0 < entry["buckets_used"] <= 1000 < entry["words"] == result["vocab"]["size"]["words"]
    assert result["counters"] == {"hashed": {"tokens": result["tokens"]["real"]}}
    assert (result["vocab"]["vectors"], result["vocab"]["characters"], result["characters"]) == ([], [], None)
    assert result["updates"]["dropout"] is True


def test_a_token_without_a_tag_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("the/DET dog\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"train\.txt:1: 'dog' has no tag; word/TAG was expected"):
        hydromel(tmp_path, "task=tag", "dataset=slash_tags", "data_dir=.", "dataset.train=train.txt", "tracker=none")


def test_the_task_beats_its_baseline(tmp_path: Path) -> None:
    options = ["features.words.lowercase=true", "encoder=conv", "encoder.filters=20", "train.epochs=1", "tracker=none"]
    result = hydromel(tmp_path, "task=restore_case", *options)
    assert result["quality"]["metric"] == "macro_f1"
    assert unbeaten_baselines(result) == {}


@pytest.mark.parametrize(
    ("metric", "unit", "higher", "kept"),
    [("mistake_cost", "", False, min), ("row_accuracy", "%", True, max)],
)
def test_runs_are_compared_by_a_metric_from_choosing_the_checkpoint_to_the_report(
    tmp_path: Path, metric: str, unit: str, higher: bool, kept: Callable[[list[float]], float]
) -> None:
    parts = [
        *tag_files(tmp_path),
        f"metric={metric}",
        "tracker=none",
    ]
    if metric == "mistake_cost":
        parts += ["metric.costs={B-PER: 5.0}", "tracker=mlflow", "tracker.uri=sqlite:///mlflow.db"]
    small = ["embedding.size=4", "encoder=conv", "encoder.filters=4", "train.epochs=3", "optimizer.lr=0.03"]
    for strategy in ("padmask", "bucketed"):
        options = [*parts, *small, "batching.batch_size=8", f"batching={strategy}"]
        result = hydromel(tmp_path, *options, run=f"runs/{strategy}")
        assert result["quality"] == {"metric": metric, "unit": unit, "higher_is_better": higher}
        assert {"f1", metric} <= result["metrics"]["test"].keys() & result["majority"].keys()
        assert metric in result["baselines"]["most_frequent_tag"]
        lines = (tmp_path / "runs" / strategy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        values = [json.loads(line)["metrics"].get(f"valid/{metric}") for line in lines]
        assert result["metrics"]["valid"][metric] == kept([value for value in values if value is not None])

    output = command(tmp_path, "hydromel-compare", "runs", "--out", "report")
    assert f"test {metric}" in output
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    (group,) = report["groups"]
    assert (group["metric"], group["unit"], group["higher_is_better"]) == (metric, unit, higher)
    (bucketed,) = (item for item in group["strategies"] if item["name"] == "bucketed")
    assert bucketed["against_padmask"]["on_examples"] is not None

    command(
        tmp_path,
        "hydromel-evaluate",
        "run=runs/padmask",
        "--json",
        "e.json",
        *(["--plugins", "my_parts"] if metric == "mistake_cost" else []),
    )
    evaluated = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    result = json.loads((tmp_path / "runs" / "padmask" / "result.json").read_text(encoding="utf-8"))
    assert evaluated["metrics"][metric] == pytest.approx(result["metrics"]["test"][metric])


def test_the_encoder_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from my_parts.encoder import MeanContext

    torch.manual_seed(1)
    encoder = MeanContext(input_size=3, causal=False, size=4).double()
    check_contract(lambda x: encoder(x, None), 3, list(encoder.parameters()))


def test_the_plan_has_each_row_once_and_short_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from my_parts.plan import ShortFirst

    lengths = np.array([5, 1, 3, 3, 9, 1, 2])
    updates = ShortFirst(batch_size=3)(lengths, np.random.default_rng(1))
    assert [len(update) for update in updates] == [3, 3, 1]
    assert lengths[np.concatenate(updates)].tolist() == sorted(lengths)
