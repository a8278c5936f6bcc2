"""Two and three ranks make the same updates as one process: parameters to 1e-9 in float64, figures and digests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from runner.distributed.ranks import ALONE, Ranks
from runner.experiment import result
from runner.experiment.run import run_experiment
from tests.helpers.composed import QUIET, label_files, pair_files, run_config, tag_files
from tests.helpers.pretrained import save_tiny
from tests.helpers.ranks import in_ranks

DIVIDED = [(2, "none"), (3, "none"), (2, "full"), (3, "full")]  # numbers of ranks, and what each keeps a part of
EXACT = (
    *("dtype=float64", "device=cpu", "train.epochs=2", "train.row_dropout=true", "train.log_every=2"),
    *("batching.batch_size=7", "embedding.size=6", "train.checkpoint_every=3", "baselines=false", "predictions=false"),
)
CONV = ("encoder=conv", "encoder.filters=4", "encoder.dropout=0.3", "task.dropout=0.2")
RNN = ("encoder=blstm", "encoder.hidden=4", "encoder.dropout=0.2")
LM = ("encoder=lstm", "encoder.hidden=4", "encoder.dropout=0.2")
STREAM = ("task.unit=stream", "batching=stream", "batching.batch_size=6", "batching.window=5")
# The last update of every epoch has a single row, so that ranks without rows take part in it.
CASES = {
    "classify, packed": ("classify", *CONV, "batching=packed"),
    "classify, bucketed, patience": (
        "classify",
        *CONV,
        "batching.plan.buckets=3",
        "train.patience=1",
        "train.epochs=4",
    ),
    "classify, one row at a time": ("classify", "encoder=bow", "batching=size1", "train.clip_norm=0.01"),
    "CRF, padded": ("tag", *RNN, "task.head=crf", "batching=padmask", "schedule=plateau"),
    "CRF, token budget": ("tag", *RNN, "task.head=crf", "batching=token_budget", "batching.plan.max_tokens=60"),
    "transformer": ("tag", "encoder=transformer", "encoder.size=8", "encoder.heads=2", "batching=packed"),
    "pairs": ("pairs", *CONV, "task.pairs=apart", "batching=padmask"),
    "several labels": ("topics", *CONV, "task.labels=many", "batching=packed", "train.clip_norm=0.1"),
    "lines": ("lm", *LM, "batching=packed"),
    "streams": ("lm", *LM, *STREAM),
    "streams of varying windows": ("lm", *LM, *STREAM, "batching.half_rate=0.3", "batching.spread=2.0"),
    "averaged, dropped weights": (
        *("lm", "encoder=lstm", "encoder.hidden=4", "batching=packed", "encoder.weight_drop=0.3"),
        *("optimizer=nt_asgd", "optimizer.lr=1.0", "optimizer.patience=1", "train.epochs=4", "train.row_dropout=false"),
        "batching.batch_size=8",  # of 25 rows
    ),
}
if find_spec("transformers") is not None:
    BERT = ("bert", "task.head=crf", "encoder=none", "batching=packed", "optimizer=adamw", "optimizer.weight_decay=0.1")
    CASES["pretrained"] = BERT
    CASES["pretrained, adapters"] = (*BERT, "embedding.lora={rank: 2, alpha: 4, dropout: 0.1, targets: [query, value]}")
    CASES["pretrained, some frozen"] = (*BERT, "embedding.frozen=[0]", "embedding.recompute=true")


@pytest.fixture(scope="module", autouse=True)
def without_timing() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "arithmetic", lambda training: None)  # it times the machine, for most of a run
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    root = tmp_path_factory.mktemp("data")
    for name in ("tag", "classify", "pairs", "lm", "topics"):
        (root / name).mkdir()
    text = " ".join(f"the {noun} sat on the mat .\n" for noun in ("cat", "dog", "bird", "old cat", "mat") * 5)
    for split in ("train", "valid", "test"):
        rows = text.splitlines()[: 25 if split == "train" else 8]
        (root / "lm" / f"{split}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
        topics = "".join(
            f"{line}\t{'pet;cat' if 'cat' in line else 'pet' if 'bird' in line else ''}\n" for line in rows
        )
        (root / "topics" / f"{split}.tsv").write_text(f"text\tlabel\n{topics}", encoding="utf-8")
    splits = [f"dataset.{split}={split}.txt" for split in ("train", "valid", "test")]
    tagged = tag_files(root / "tag", rows=36)
    model = save_tiny(root / "model", "bert") if "pretrained" in CASES else None
    return {
        "tag": tagged,
        "bert": [*tagged, "embedding=pretrained", f"embedding.path={model}", "embedding.overlap=4"],
        "topics": [
            *("task=classify", "dataset=tsv", 'dataset.label_separator=";"', f"data_dir={root / 'topics'}"),
            *(f"dataset.{split}={split}.tsv" for split in ("train", "valid", "test")),
        ],
        "classify": label_files(root / "classify", rows=36),
        "pairs": pair_files(root / "pairs", rows=36),
        "lm": ["task=lm", "dataset=text", f"data_dir={root / 'lm'}", *splits],
    }


def options_of(case: str, data: dict[str, list[str]]) -> list[str]:
    name, *options = CASES[case]
    without = ["batching.batch_size"] if "budget" in case else ["embedding.size"] if name == "bert" else []
    return [*data[name], *(option for option in EXACT if option.split("=")[0] not in without), *options]


def train(folder: Path, options: list[str], ranks: Ranks, shard: str = "none") -> None:
    config = run_config(*QUIET, *options, f"ranks={ranks.world}", f"shard={shard}", f"runs_dir={folder.parent}")
    run_experiment(config, folder, 0.0, ranks)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, data: dict[str, list[str]]) -> Path:
    root = tmp_path_factory.mktemp("alone")
    for case in CASES:
        train(root / case, options_of(case, data), ALONE)
    return root


@pytest.fixture(scope="module", params=DIVIDED, ids=lambda param: f"{param[0]} ranks, shard={param[1]}")
def together(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: dict[str, list[str]]
) -> Path:
    root = tmp_path_factory.mktemp("together")

    world, shard = request.param

    def work(ranks: Ranks) -> None:
        for case in CASES:
            train(root / case, options_of(case, data), ranks, shard)

    codes = in_ranks(world, work, root / "said")
    assert codes == [0] * world, "\n".join(file.read_text() for file in sorted((root / "said").iterdir()))
    return root


def assert_equal(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare the tensors of two checkpoints: parameters and the state of the optimiser to 1e-9, the others by form."""
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape), name
        if name.startswith(("model.", "state.optimizer.")):
            torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-9, msg=name)


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return record


@pytest.mark.parametrize("case", CASES)
def test_ranks_make_the_updates_of_one_process(
    case: str, alone: Path, together: Path, request: pytest.FixtureRequest
) -> None:
    expected, got = (load_file(root / case / "checkpoints" / "last.safetensors") for root in (alone, together))
    assert_equal(got, expected)
    one, several = record_of(alone / case), record_of(together / case)
    assert one["updates"] == several["updates"]
    assert one["tokens"]["real"] == several["tokens"]["real"]
    assert several.get("counters", {}).keys() == one.get("counters", {}).keys()
    if pieces := one.get("counters", {}).get("pieces"):
        computed = several["counters"]["pieces"]["real"]
        # with divided parameters a rank without rows computes one, to take part
        assert computed >= pieces["real"] if "full" in request.node.name else computed == pieces["real"]
    for split in ("valid", "test"):
        figures = {name: value for name, value in one["metrics"][split].items() if isinstance(value, float)}
        assert {name: several["metrics"][split][name] for name in figures} == pytest.approx(figures, rel=1e-9)


@pytest.mark.parametrize(
    ("case", "before", "after"),
    [
        ("CRF, token budget", (3, "none"), (2, "none")),
        ("streams", (3, "none"), (2, "none")),
        ("CRF, token budget", (2, "full"), (1, "none")),
        ("streams", (1, "none"), (3, "full")),
        ("transformer", (3, "full"), (2, "full")),
        ("transformer", (2, "none"), (2, "full")),
    ],
)
def test_a_run_is_resumed_by_other_ranks(
    case: str, before: tuple[int, str], after: tuple[int, str], tmp_path: Path, data: dict[str, list[str]]
) -> None:
    options, whole, folder = options_of(case, data), tmp_path / "whole", tmp_path / "run"
    train(whole, options, ALONE)
    for (world, shard), limit in ((before, ["train.max_updates=4"]), (after, [])):
        codes = in_ranks(world, partial(train, folder, [*options, *limit], shard=shard), tmp_path / "said")
        assert codes == [0] * world, (tmp_path / "said" / "0.log").read_text()
    assert_equal(*(load_file(root / "checkpoints" / "last.safetensors") for root in (folder, whole)))
    assert record_of(whole)["updates"]["digest"] == record_of(folder)["updates"]["digest"]
