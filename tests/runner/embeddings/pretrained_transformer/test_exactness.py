"""The largest difference of packed and padded rows from single ones, by family, task and strategy, as a table.

    pytest -m campaign -s tests/runner/embeddings/pretrained_transformer/test_exactness.py

Scores and gradients in float64, in training, with dropout by a seed for each row where the model can have it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.components.run_components import build_strategy
from runner.data.numericalize import arrange
from runner.interfaces import BatchingStrategy
from runner.model import Model, build_model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from tests.helpers.composed import data_of, label_files, pair_files, parts, run_config, tag_files
from tests.helpers.contract import rows_of

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import CAUSAL, FAMILIES, UNSUPPORTED, save_tiny

ROWS, MOST = 12, 1e-9
STRATEGIES = ("padmask", "packed", "bucketed")  # beside size1


def text_files(folder: Path) -> list[str]:
    for split in ("train", "valid"):
        (folder / f"{split}.txt").write_text("the cat sat\n\non a mat walking\ncats walked the mat\n" * 3)
    return ["task=lm", "dataset=text", f"data_dir={folder}", "dataset.train=train.txt", "dataset.valid=valid.txt"]


def json_files(folder: Path, targets: list[object]) -> list[str]:
    for split in ("train", "valid", "test"):
        rows = [{"text": "the cat sat " * (n % 5 + 1), "label": target} for n, target in enumerate(targets)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return ["dataset=jsonl", f"data_dir={folder}", *(f"dataset.{n}={n}.jsonl" for n in ("train", "valid", "test"))]


def options_of(folder: Path, task: str) -> list[str]:
    """Return the options of a task, with its files."""
    if task == "sets":
        return [*json_files(folder, [["a"], ["a", "b"], [], ["b"]] * 3), "task=classify", "task.labels=many"]
    if task == "numbers":
        return [*json_files(folder, [0.5, 1.5, -1.0, 3.25] * 3), "task=regress"]
    if task == "lm":
        return text_files(folder)
    files = pair_files if task.startswith("pairs") else tag_files if task.startswith("tag") else label_files
    more = {
        "classify, [CLS]": ["task.pooling=first", "embedding.specials=keep"],
        "classify, windows": ["embedding.window=9", "embedding.overlap=3"],
        "tag, CRF": ["task.head=crf"],
        "tag, last piece": ["embedding.pool=last"],
        "tag, mean of pieces": ["embedding.pool=mean"],
        "tag, first and last": ["embedding.pool=first_last"],
        "tag, encoder above": ["encoder=lstm", "encoder.hidden=5"],
        "tag, three layers": ["embedding.layers=[0,1,-1]"],
        "pairs, joined": ["task.pairs=joined"],
        "pairs, apart": ["task.pairs=apart"],
    }
    return [*files(folder, ROWS), *more.get(task, [])]


def outcome(model: Model, strategy: BatchingStrategy, train: Batch) -> tuple[Tensor, Tensor]:
    """Return the scores of all rows, in their order, and the gradient of the summed loss, as one vector each."""
    model.zero_grad()
    scores: dict[int, Tensor] = {}
    for batch in strategy.micro_batches(train, np.arange(len(train.index))):
        of_batch, _ = model(batch, None)
        model.head.loss(of_batch, batch).total.backward()
        losses = model.head.losses(of_batch, batch)
        flat = losses.tokens() if isinstance(losses, Ragged) else losses
        per_row = len(flat) == len(batch.index)  # as of a CRF
        counts = [1] * len(flat) if per_row else batch.targets_per_row.tolist()
        scores.update(zip(batch.index.tolist(), flat.detach().split(counts), strict=True))
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat([scores[row] for row in sorted(scores)]), torch.cat(gradients)


def differences(folder: Path, family: str, task: str) -> dict[str, tuple[float, float]]:
    """Return by strategy how much losses and gradients differ at most from those of single rows."""
    folder.mkdir(parents=True)
    path = save_tiny(folder / family, family, with_head=task == "lm")
    embedding = "pretrained_lm" if task == "lm" else "pretrained"
    more = ["task.tie_weights=true"] if task == "lm" else ["embedding.dropout=0.1"]
    dropout = "0" if family in UNSUPPORTED else "0.1"
    common = ["encoder=none", f"embedding={embedding}", f"embedding.path={path}", f"embedding.inner_dropout={dropout}"]
    options = [*common, "embedding.overlap=2", "cache_dir=null", "device=cpu", *more, *options_of(folder, task)]
    config = run_config(*options)
    torch.manual_seed(3)
    data, own = data_of(config), parts(config)
    model = build_model(own, data.vocabs).double().train()
    results = {}
    for name in ("size1", *STRATEGIES):
        strategy = build_strategy(run_config(*options, f"batching={name}").batching, [])
        train = arrange(own, strategy, data.splits["train"], None)
        results[name] = outcome(model, strategy, train.with_seeds(torch.arange(len(train.index))))
    alone = results.pop("size1")
    return {
        name: (float((got[0] - alone[0]).abs().max()), float((got[1] - alone[1]).abs().max()))
        for name, got in results.items()
    }


def from_transformers(folder: Path, family: str) -> float:
    """Return by how much packed vectors differ at most from those of transformers for padded rows with a mask."""
    from transformers import AutoModel

    from runner.embeddings.pretrained_transformer.files import find_files
    from runner.embeddings.pretrained_transformer.load import load_model

    path = save_tiny(folder / f"{family}-alone", family)
    ours = load_model(find_files(str(path), None, None), 0.0, None, recompute=False).model.double().eval()
    theirs = AutoModel.from_pretrained(path).double().eval()
    rows = rows_of([7, 2, 5, 1])
    ids = Ragged(torch.arange(rows.n_tokens) % 20 + 5, rows, "packed")
    padded = ids.pad(ours.pad)
    with torch.no_grad():
        expected = theirs(padded.values, attention_mask=padded.mask().long()).last_hidden_state
        return float((ours(ids, None, False)[-1].values - padded.with_values(expected).tokens()).abs().max())


CASES = [
    *((family, task) for family in (*FAMILIES, *UNSUPPORTED) for task in ("classify", "tag, CRF", "pairs, joined")),
    *(
        ("bert", task)
        for task in (
            "classify, [CLS]",
            "classify, windows",
            "sets",
            "numbers",
            "tag, last piece",
            "tag, mean of pieces",
            "tag, first and last",
            "tag, encoder above",
            "tag, three layers",
            "pairs, apart",
        )
    ),
    *((family, "classify, windows") for family in ("modernbert", "qwen3", "mpnet")),
    *((family, "lm") for family in CAUSAL),
]


@pytest.mark.campaign
def test_every_family_task_and_strategy_is_exact(tmp_path: Path) -> None:
    print("\n| model | task | padmask | packed | bucketed | transformers |\n| --- | --- | --- | --- | --- | --- |")
    for number, (family, task) in enumerate(CASES):
        found = differences(tmp_path / str(number), family, task)
        cells = [f"{losses:.0e}, {gradients:.0e}" for losses, gradients in found.values()]
        beside = f"{from_transformers(tmp_path, family):.0e}" if task == "classify" else ""
        print(f"| {family} | {task} | {' | '.join(cells)} | {beside} |", flush=True)
        assert max(max(pair) for pair in found.values()) < MOST, (family, task)
        assert not beside or float(beside) < MOST
