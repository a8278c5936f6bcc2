"""A failure of one rank: all ranks go on together, or all end."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.distributed.environment import LostRank
from runner.distributed.ranks import ALONE, Ranks
from runner.experiment.run import run_experiment
from runner.terminal.interruption import interruption
from runner.training import evaluation, loop
from tests.helpers.composed import QUIET, run_config, tag_files
from tests.helpers.ranks import in_ranks

OPTIONS = (
    *("encoder=conv", "encoder.filters=4", "embedding.size=6", "batching=packed", "batching.batch_size=8"),
    *("dtype=float64", "device=cpu", "train.epochs=2", "baselines=false", "train.row_dropout=true"),
)

SHARD = ("none", "full")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tag_files(tmp_path_factory.mktemp("data"), rows=40)


def train(folder: Path, ranks: Ranks, data: list[str], *options: str) -> None:
    config = run_config(*QUIET, *data, *OPTIONS, *options, f"ranks={ranks.world}", f"runs_dir={folder.parent}")
    run_experiment(config, folder, 0.0, ranks)


def on_update(update: int, rank: int, act: Any) -> Any:
    """`_add_own_gradients` that lets one rank `act` before an update, counted from 1."""
    add = loop._add_own_gradients

    def changed(t: Any, rows: Any, lap: Any) -> Any:
        if t.ranks.rank == rank and t.progress.updates + 1 == update:
            act(t)
        return add(t, rows, lap)

    return changed


def parameters(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "checkpoints" / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def status(folder: Path) -> tuple[str, str]:
    record = json.loads((folder / run_schema.RUN).read_text())
    return record["status"], record["error"] or ""


def test_memory_that_one_rank_lacks(data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "one", ALONE, data)

    def lacks(t: Any) -> None:
        if t.progress.micro_batch is None:
            raise MemoryError

    def work(ranks: Ranks) -> None:
        monkeypatch.setattr(loop, "check_memory", lambda *arguments: None)
        monkeypatch.setattr(loop, "_add_own_gradients", on_update(3, 1, lacks))
        train(tmp_path / "two", ranks, data)

    assert in_ranks(2, work, tmp_path / "said") == [0, 0]
    for name, tensor in parameters(tmp_path / "one").items():
        torch.testing.assert_close(parameters(tmp_path / "two")[name], tensor, rtol=0, atol=1e-9, msg=name)
    memory = json.loads((tmp_path / "two" / run_schema.RESULT).read_text())["memory"]["micro_batch"]
    assert memory["halved_at"] == [3]


@pytest.mark.parametrize("rank", [0, 1])
def test_memory_that_one_rank_lacks_in_evaluation(
    rank: int, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ranks evaluate again with smaller batches: with batches of different sizes, figures would be wrong."""
    small = ("train.eval_batch_size=4",)
    train(tmp_path / "one", ALONE, data, *small)
    predicted = evaluation._predicted

    def work(ranks: Ranks) -> None:
        sizes: list[int] = []

        def lacks(*arguments: Any) -> Any:
            for batch, values in predicted(*arguments):
                sizes.append(batch.rows.n_rows)
                yield batch, values
                if len(sizes) == 1 and rank == ranks.rank:
                    raise MemoryError

        monkeypatch.setattr(evaluation, "_predicted", lacks)
        train(tmp_path / "two", ranks, data, *small)
        assert sizes[0] == 4
        assert max(sizes[2:]) == 2  # each rank had at most two batches of the larger size

    assert in_ranks(2, work, tmp_path / "said") == [0, 0]
    results = [json.loads((tmp_path / name / run_schema.RESULT).read_text()) for name in ("one", "two")]
    one, two = (result["metrics"]["valid"] for result in results)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-9)
    assert one["f1"] == two["f1"]


def test_memory_that_one_rank_of_shards_lacks(data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(t: Any) -> None:
        raise MemoryError

    def work(ranks: Ranks) -> int:
        monkeypatch.setattr(loop, "_add_own_gradients", on_update(3, 1, lacks))
        with pytest.raises(HydromelError) as caught:
            train(tmp_path / "run", ranks, data, "shard=full", "train.rehearse=false")
        if ranks.rank == 1:
            assert "out of memory in rank 1; with shard=full an update cannot be repeated" in str(caught.value)
        else:
            assert isinstance(caught.value, LostRank)
        return 4

    assert in_ranks(2, work, tmp_path / "said") == [4, 4]


@pytest.mark.parametrize("shard", SHARD)
def test_a_loss_that_is_not_a_number(
    shard: str, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(t: Any) -> None:
        with torch.no_grad():
            bias = t.model.head.get_parameter("linear.bias")
            (bias.to_local() if shard == "full" else bias)[-1] = math.nan

    def work(ranks: Ranks) -> int:
        monkeypatch.setattr(loop, "check_memory", lambda *arguments: None)
        monkeypatch.setattr(loop, "_add_own_gradients", on_update(3, 1, spoil))
        with pytest.raises(HydromelError, match="is nan at update 3"):
            train(tmp_path / "run", ranks, data, f"shard={shard}")
        return 5

    assert in_ranks(2, work, tmp_path / "said") == [5, 5]
    assert status(tmp_path / "run")[0] == run_schema.FAILED


@pytest.mark.parametrize("shard", SHARD)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_stops_all_after_the_same_update(
    rank: int, shard: str, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(ranks: Ranks) -> int:
        interruption.heed()
        monkeypatch.setattr(
            loop, "_add_own_gradients", on_update(3, rank, lambda t: os.kill(os.getpid(), signal.SIGTERM))
        )
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", ranks, data, f"shard={shard}", "train.rehearse=false")
        return 6

    assert in_ranks(2, work, tmp_path / "said") == [6, 6]
    assert status(tmp_path / "run")[0] == run_schema.INTERRUPTED
    train(tmp_path / "run", ALONE, data, "train.rehearse=false")
    train(tmp_path / "one", ALONE, data, "train.rehearse=false")
    for name, tensor in parameters(tmp_path / "one").items():
        torch.testing.assert_close(parameters(tmp_path / "run")[name], tensor, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("shard", SHARD)
@pytest.mark.parametrize("rank", [0, 2])
def test_a_killed_rank_ends_the_others(
    rank: int, shard: str, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(ranks: Ranks) -> int:
        monkeypatch.setattr(
            loop, "_add_own_gradients", on_update(3, rank, lambda t: os.kill(os.getpid(), signal.SIGKILL))
        )
        with pytest.raises(LostRank, match="lost"):
            train(tmp_path / "run", ranks, data, f"shard={shard}", "train.rehearse=false", "train.checkpoint_every=2")
        return 7

    codes = in_ranks(3, work, tmp_path / "said")
    assert codes == [-9 if number == rank else 7 for number in range(3)]
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["batching.batch_size=1"], "there are only 1 rows of an update (batching.batch_size); use fewer ranks"),
        (["encoder=transformer", "encoder.size=8", "encoder.heads=2", "encoder.norm=batch"], "statistics of a batch"),
        (
            ["encoder=rnn", "encoder.hidden=4", "encoder.weight_drop=0.3", "batching=size1", "train.row_dropout=false"],
            "batching=size1 needs encoder.weight_drop=0",
        ),
    ],
)
def test_what_ranks_cannot_train(options: list[str], expected: str, data: list[str], tmp_path: Path) -> None:
    kept = [option for option in OPTIONS if not options[0].startswith("encoder") or "encoder" not in option]

    def work(ranks: Ranks) -> int:
        config = run_config(*QUIET, *data, *kept, *options, f"ranks={ranks.world}", f"runs_dir={tmp_path}")
        with pytest.raises(HydromelError) as caught:
            run_experiment(config, tmp_path / "run", 0.0, ranks)
        assert expected in str(caught.value)
        return 8

    assert in_ranks(2, work, tmp_path / "said") == [8, 8]
    assert not (tmp_path / "run" / run_schema.RUN).exists()


def test_sparse_gradients_of_ranks_without_rows(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> int:
        torch.manual_seed(0)
        table = torch.nn.Embedding(9, 3, sparse=True)

        def compute() -> tuple[torch.Tensor, int]:
            if ranks.rank == 1:
                return torch.zeros(()), 0
            loss: torch.Tensor = table(torch.tensor([1, 2, 2, 5 + ranks.rank])).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach(), 4

        loss, count = ranks.mean_gradients(table, compute)
        expected = table(torch.tensor([1, 2, 2, 5, 1, 2, 2, 7])).square().sum() / 8
        gradient = table.weight.grad
        assert gradient is not None
        summed = gradient.to_dense()
        table.weight.grad = None
        expected.backward()
        assert count == 8
        assert gradient.is_sparse
        torch.testing.assert_close(loss.float(), expected.detach())
        torch.testing.assert_close(summed, table.weight.grad.to_dense())
        return 9

    assert in_ranks(3, work, tmp_path / "said") == [9, 9, 9]
