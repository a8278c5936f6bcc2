"""A run that starts from another's parameters: what is taken, what is left out, what is refused, what is recorded."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.hashes import comparison_hash
from runner.experiment import init_from
from runner.experiment import run as run_module
from runner.inference.trained import read_vocabs
from runner.training import loop
from runner.training.checkpoint import checkpoint_path
from tests.helpers.composed import config, label_files, run, tag_files
from tests.helpers.interrupted import assert_equal, interrupted

SMALL = ["encoder=rnn", "encoder.hidden=4", "embedding.size=4", "device=cpu", "batching.batch_size=8", "train.epochs=1"]
# rates too small to change a float32: the parameters of the best checkpoint are those that training started with
FROZEN = ["optimizer=sgd", "optimizer.lr=1e-30", "optimizer.momentum=0.0", "train.clip_norm=null"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tag_files(tmp_path_factory.mktemp("data"), rows=30)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, data: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "source"
    run(folder, *data, *SMALL)
    return folder


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(checkpoint_path(folder, "best"))
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def result(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / run_schema.RESULT).read_text(encoding="utf-8"))
    return content


def words(folder: Path) -> tuple[str, ...]:
    return read_vocabs(folder, [])["words"].tokens


def refusal(folder: Path, *overrides: str) -> str:
    with pytest.raises(HydromelError) as caught:
        run(folder, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_parameters(source: Path, data: list[str], tmp_path: Path) -> None:
    run(tmp_path / "run", *data, *SMALL, *FROZEN, f"init_from={source}", "seed=9")
    before, after = parameters(source), parameters(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    updates = result(source)["updates"]
    assert isinstance(updates, dict)
    assert result(tmp_path / "run")["init_from"] == {
        "folder": str(source),
        "run_id": result(source)["run_id"],
        "updates": updates["count"],
        "head": "kept",
    }
    assert result(source)["init_from"] is None


def test_other_labels_get_another_head(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tag_files(tmp_path, rows=30, seed=3)
    for path in tmp_path.glob("*.conll"):
        text = path.read_text(encoding="utf-8").replace("B-LOC", "B-TOWN").replace("Rome", "Bern")
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(logging.getLogger("runner"), "propagate", True)
    with caplog.at_level(logging.INFO, "runner"):
        run(tmp_path / "run", *other, *SMALL, *FROZEN, f"init_from={source}")
    labels = "only this run has 'B-TOWN', 'I-TOWN'; only that run has 'B-LOC', 'I-LOC'"
    assert f"the head is new, since the labels differ: {labels}" in caplog.text
    before, after = parameters(source), parameters(tmp_path / "run")
    for name in before:
        assert torch.equal(before[name], after[name]) != name.startswith("model.head."), name
    assert words(tmp_path / "run") == words(source), "the vocabulary is that of the other run"
    assert "Bern" not in words(source)
    recorded = result(tmp_path / "run")["init_from"]
    assert isinstance(recorded, dict)
    assert recorded["head"] == "new"


def test_another_task_gets_another_head(source: Path, tmp_path: Path) -> None:
    run(
        tmp_path / "run", *label_files(tmp_path, rows=30), *SMALL, *FROZEN, "train.max_updates=1", f"init_from={source}"
    )
    before, after = parameters(source), parameters(tmp_path / "run")
    shared = [name for name in before if not name.startswith("model.head.")]
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert words(tmp_path / "run") == words(source)


def test_what_does_not_fit_is_refused_by_name(source: Path, data: list[str], tmp_path: Path) -> None:
    start = [*data, *SMALL, f"init_from={source}"]
    best = checkpoint_path(source, "best")
    for options, expected in (
        (["encoder.hidden=6"], f"{best} does not fit this config: encoder."),
        (["embedding.size=5"], f"{best} does not fit this config: embedding."),
        (["task.head=crf"], f"{best} does not fit this config: head."),
        (
            ["features.words.lowercase=true"],
            f"init_from={source}: features.words.lowercase=True, but that run has False; its vocabulary is used",
        ),
        (["features=words_chars"], f"init_from={source}: features.chars"),
    ):
        assert expected in refusal(tmp_path / "run", *start, *options)
    assert "nowhere: no such run" in refusal(tmp_path / "run", *data, *SMALL, "init_from=nowhere")
    (tmp_path / "vain").mkdir()
    (tmp_path / "vain" / run_schema.RESOLVED).write_bytes((source / run_schema.RESOLVED).read_bytes())
    (tmp_path / "vain" / run_schema.VOCABS).write_bytes((source / run_schema.VOCABS).read_bytes())
    assert "there is no checkpoint" in refusal(tmp_path / "run", *data, *SMALL, f"init_from={tmp_path / 'vain'}")


def test_options_that_fit_and_differ_are_told(
    source: Path, data: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("runner"), "propagate", True)
    with caplog.at_level(logging.INFO, init_from.__name__):
        run(tmp_path / "run", *data, *SMALL, f"init_from={source}", "encoder.dropout=0.25", "train.max_updates=1")
    assert f"init_from={source}: encoder.dropout=0.25, but that run has 0.0" in caplog.text


def test_it_resumes_without_the_other_run(source: Path, data: list[str], tmp_path: Path) -> None:
    other = tag_files(tmp_path, rows=30, seed=3)
    options = [*other, *SMALL, "encoder.dropout=0.2", "train.epochs=2", "train.checkpoint_every=2"]
    copied = tmp_path / "source"
    copied.symlink_to(source)
    run(tmp_path / "whole", *options, f"init_from={copied}")
    interrupted(loop, "train_segment", tmp_path / "run", *options, f"init_from={copied}", call=3)
    copied.unlink()
    interrupted(run_module, "finish", tmp_path / "run", *options, f"init_from={copied}")
    line = refusal(tmp_path / "run", *options, f"init_from={source}")
    assert "init_from=" in line
    assert "the run started from the other parameters" in line
    run(tmp_path / "run", *options, f"init_from={copied}")
    assert_equal(tmp_path / "whole", tmp_path / "run")


def test_a_language_model_keeps_its_head(tmp_path: Path) -> None:
    options = ["task=lm", "dataset=text", f"data_dir={tmp_path}", "dataset.valid=valid.txt", *SMALL, "encoder=lstm"]
    for name, text in (("a", "the cat sat"), ("b", "a dog sat on it"), ("valid", "the dog")):
        (tmp_path / f"{name}.txt").write_text(f"{text}\n" * 20, encoding="utf-8")
    run(tmp_path / "source", *options, "dataset.train=a.txt")
    run(tmp_path / "run", *options, *FROZEN, "dataset.train=b.txt", f"init_from={tmp_path / 'source'}")
    before, after = parameters(tmp_path / "source"), parameters(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert words(tmp_path / "run") == words(tmp_path / "source")


def test_hashes_of_runs_without_it_stay(source: Path) -> None:
    plain = config("tracker=none")
    assert plain["init_from"] is None
    without = {key: value for key, value in plain.items() if key != "init_from"}
    assert comparison_hash(plain) == comparison_hash(without)
    assert comparison_hash(plain | {"init_from": str(source)}) != comparison_hash(plain)
