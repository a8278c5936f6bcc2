"""The exchange of gradients between ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from runner.distributed import ranks
from runner.distributed.ranks import Ranks
from tests.helpers.ranks import in_ranks


def gradient_of(rank: int) -> Tensor:
    table = torch.zeros(9, 2)
    table[[rank, 7]] = torch.tensor([[1.0, float("nan") if rank else 2.0], [3.0 + rank, -1.0]])
    return table


def test_only_touched_rows_of_a_table_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_TABLE", 1)
    reduce = distributed.all_reduce
    sent = []

    def counted(tensor: Tensor, *args: object, **options: object) -> None:
        sent.append(tensor.numel())
        reduce(tensor, *args, **options)

    def work(group: Ranks) -> None:
        monkeypatch.setattr(distributed, "all_reduce", counted)
        vectors, full = gradient_of(group.rank), torch.ones(2, 3)
        group.add([vectors, full, torch.ones(4)])
        expected = gradient_of(0) + gradient_of(1)
        torch.testing.assert_close(vectors, expected, rtol=0, atol=0, equal_nan=True)
        assert full.unique().tolist() == [2.0]
        assert sent == [9, 2, 3 * 2 + 2 * 3 + 4]  # which rows of each are touched, and three rows with all else

    assert in_ranks(2, work, tmp_path) == [0, 0], (tmp_path / "0.log").read_text()
