"""Operations of training: against counts by hand, and fused kernels against the same layers step by step."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from runner.experiment import flops as arithmetic
from runner.experiment import result
from runner.experiment.flops import FORMULAS, device_flops_per_s
from runner.layers.recurrent.recurrence import Cell, Recurrence
from runner.ragged.ragged import Ragged
from runner.training.state import Training
from tests.helpers.composed import run, tag_files
from tests.helpers.contract import rows_of
from tests.helpers.machine import lstm_is_fused

D, H, GATES = 5, 3, {"rnn": 1, "gru": 3, "lstm": 4}


def flops(computed: Any, *inputs: Tensor) -> tuple[int, int]:
    """Of forward, and of forward and backward to all that needs gradients."""
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        output = computed(*inputs)
        forward = counter.get_total_flops()
        output.sum().backward()
    return forward, counter.get_total_flops()


def given(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True)


def test_products_and_convolutions() -> None:
    product = 2 * 7 * 3 * 5
    assert flops(nn.Linear(3, 5), given(7, 3)) == (product, 3 * product)
    assert flops(nn.Linear(3, 5), torch.randn(7, 3)) == (product, 2 * product)  # no gradient of what was given
    added = torch.zeros(7, 5)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        added.addmm_(torch.ones(7, 3), torch.ones(3, 5))
    assert counter.get_total_flops() == product
    convolution = 2 * 2 * 5 * (5 * 3 * 2)  # two rows of five places, for each a matrix of 5 outputs, 3 inputs, width 2
    assert flops(nn.Conv1d(3, 5, 2), given(2, 3, 6)) == (convolution, 3 * convolution)


def recurrent(cell: Cell, layout: str, lengths: list[int], stepped: bool) -> tuple[int, int]:
    torch.manual_seed(1)
    rows = rows_of(lengths)
    rows = rows.step_by_step() if stepped else rows
    packed = Ragged(given(sum(lengths), D), rows, "packed")
    layer, x = Recurrence(cell, D, H, reverse=False), packed if layout == "packed" else packed.pad()
    return flops(lambda: layer(x, None)[0].values)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_recurrent_layers(cell: Cell) -> None:
    item = 2 * GATES[cell] * H * (D + H)
    begin = 2 * GATES[cell] * H * H  # zeros, of which no gradient is wanted: what is not fused leaves that product out
    forward, both = recurrent(cell, "padded", [4, 4], stepped=False)
    assert forward == 8 * item
    assert both in (24 * item, 24 * item - 2 * begin)
    forward, both = recurrent(cell, "padded", [1, 4], stepped=False)
    assert 5 * item <= forward <= 8 * item  # as much of the padding as the kernel computes
    if cell != "lstm":  # which run unrolled, over no padding, with gradients of their states at the begin too
        assert (forward, both) == (5 * item, 15 * item)
    for layout in ("packed", "padded"):  # no padding is computed where cells step through time
        forward, both = recurrent(cell, layout, [1, 4], stepped=True)
        assert forward == 5 * item
        assert 15 * item - 2 * begin <= both <= 15 * item


@pytest.mark.skipif(not lstm_is_fused(), reason="torch has no fused LSTM on this processor")
def test_a_fused_kernel_is_missed_without_its_formula() -> None:
    layer, x = nn.LSTM(D, H, batch_first=True), torch.randn(2, 4, D)
    counted = {}
    for name, known in (("with", FORMULAS), ("without", {})):
        with FlopCounterMode(display=False, custom_mapping=known) as counter:
            layer(x)
        counted[name] = counter.get_total_flops()
    assert counted == {"with": 8 * 2 * 4 * H * (D + H), "without": 0}


def test_cudnn_by_hand() -> None:
    """Two layers of two directions: inputs of 5 and of 2 * 3 numbers."""
    weights = [size for inputs in (D, D, 2 * H, 2 * H) for size in ((4 * H, inputs), (4 * H, H), (4 * H,), (4 * H,))]
    expected = 2 * 7 * (2 * 4 * H * (D + H) + 2 * 4 * H * (2 * H + H))
    aten: Any = torch.ops.aten
    for shape in ((7, D), (1, 7, D)):
        assert FORMULAS[aten._cudnn_rnn](shape, weights, 4, None, (), out_shape=()) == expected
        assert FORMULAS[aten._cudnn_rnn_backward](shape, weights, 4, None, (), out_shape=()) == 2 * expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cudnn_counts_as_much_as_the_cpu() -> None:
    layer, x = nn.LSTM(D, H, num_layers=2, bidirectional=True, batch_first=True), given(2, 4, D)
    actual = [flops(lambda: layer.to(device)(x.to(device))[0]) for device in ("cpu", "cuda")]  # noqa: B023
    assert actual[0] == actual[1]


@pytest.mark.parametrize("backend", [torch.nn.attention.SDPBackend.FLASH_ATTENTION, torch.nn.attention.SDPBackend.MATH])
def test_attention(backend: torch.nn.attention.SDPBackend) -> None:
    queries, keys, values = given(2, 3, 5, 4), given(2, 3, 7, 4), given(2, 3, 7, 4)
    product = 2 * (2 * 3) * 5 * 7 * 4
    with torch.nn.attention.sdpa_kernel(backend):
        forward, both = flops(F.scaled_dot_product_attention, queries, keys, values)
    again = 1 if backend is torch.nn.attention.SDPBackend.FLASH_ATTENTION else 0  # the scores, for the gradient
    assert (forward, both) == (2 * product, (6 + again) * product)


def test_the_rate_of_the_device_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.chain([0.001, 0.003, 0.005, 0.002, 0.004], itertools.repeat(0.004))
    now, begun = 0.0, False

    def clock() -> float:
        nonlocal now, begun
        begun = not begun
        now += 0.0 if begun else next(seconds)
        return now

    monkeypatch.setattr(time, "perf_counter", clock)
    device_flops_per_s.cache_clear()
    rate = device_flops_per_s(torch.device("cpu"), torch.float32, 1, "none")
    device_flops_per_s.cache_clear()
    assert rate == pytest.approx(2 * 256**3 / 0.002)  # the first product, of 128, took less than 2 ms


LSTM = ("encoder=lstm", "encoder.hidden=3", "encoder.dropout=0.5", "embedding.size=5", "train.epochs=1")


def test_a_run_says_what_it_used_and_is_not_changed_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def watched(t: Training) -> dict[str, float | str] | None:
        def state() -> list[Tensor]:
            return [torch.get_rng_state(), *(parameter.detach().clone() for parameter in t.model.parameters())]

        before, account = state(), t.costs.state()
        actual = arithmetic.arithmetic(t)
        seen.append(all(map(torch.equal, before, state())) and t.costs.state() == account)
        seen.append(all(parameter.grad is None for parameter in t.model.parameters()))
        return actual

    monkeypatch.setattr(result, "arithmetic", watched)
    actual = run(tmp_path / "run", *tag_files(tmp_path), *LSTM, "batching=same_length", "batching.batch_size=8")
    assert seen == [True, True]
    used, speed, tokens = actual["arithmetic"], actual["speed"], actual["tokens"]
    tags = actual["vocab"]["size"]["target"]
    assert used["flops_per_place"] == 3 * 2 * (4 * H * (D + H) + H * tags)  # rectangles, no padding: the same for each
    assert tokens["padded"] == 0
    assert used["achieved_flops_per_s"] == pytest.approx(used["flops_per_place"] * speed["real_tokens_per_s"], rel=0.1)
    assert used["share"] == pytest.approx(used["achieved_flops_per_s"] / used["device_flops_per_s"])
    assert 0 < used["share"] < 1
    assert used["dtype"] == "float32"


def test_nothing_is_said_of_runs_that_timed_nothing(tmp_path: Path) -> None:
    options = [*tag_files(tmp_path), *LSTM, "train.warmup_updates=1000", "dtype=float64"]
    actual = run(tmp_path / "run", *options)
    assert actual["speed"]["timed_updates"] == 0
    assert actual["arithmetic"] is None
