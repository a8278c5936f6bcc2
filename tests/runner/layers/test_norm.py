"""Normalisation against torch's modules on packed tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.layers.norm import LayerNorm, MaskedBatchNorm, normalisation
from runner.ragged.ragged import Ragged
from tests.helpers.contract import NoWaiting, check_contract, rows_of

LAYOUTS = ("packed", "padded")


def laid_out(lengths: list[int], layout: str, seed: int = 0) -> Ragged:
    torch.manual_seed(seed)
    values = 3 * torch.randn(sum(lengths), 4, dtype=torch.float64) + 2
    x = Ragged(values.requires_grad_(), rows_of(lengths, widen=2), "packed")
    return x if layout == "packed" else x.pad(float("nan"))


def applied(layer: Any, x: Ragged) -> Ragged:
    return x.with_values(layer(x.values, x.rows, x.layout))


def moved(layer: Any) -> Any:
    """Return a layer with random weights."""
    for place, parameter in enumerate(layer.parameters()):
        torch.manual_seed(place)
        parameter.data.uniform_(0.5, 2.0)
    return layer


@pytest.mark.parametrize("name", ["layer", "batch"])
def test_norms_keep_the_contract_in_evaluation(name: Any) -> None:
    layer = moved(normalisation(name, 4).double().eval())
    if name == "batch":
        layer.running_mean.uniform_(), layer.running_var.uniform_(0.5, 2.0)
    check_contract(lambda x: applied(layer, x.with_values(x.filled(0.0))), 4, list(layer.parameters()))


def test_layer_norm_keeps_the_contract_in_training_too() -> None:
    layer = moved(LayerNorm(4).double())
    check_contract(lambda x: applied(layer, x.with_values(x.filled(0.0))), 4, list(layer.parameters()))


def gradients(output: Tensor, of: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((output * torch.linspace(1, 2, output.numel()).view_as(output)).sum(), of)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masked_batch_norm_is_torchs_on_the_packed_tokens(layout: str) -> None:
    ours, peer = moved(MaskedBatchNorm(4).double()), moved(nn.BatchNorm1d(4).double())
    for seed, lengths in enumerate([[5, 0, 3], [2, 2], [1, 1, 7]]):
        for mode in (True, False):
            ours.train(mode), peer.train(mode)
            packed, x = laid_out(lengths, "packed", seed), laid_out(lengths, "packed", seed)
            expected = peer(packed.values)
            got = applied(ours, x if layout == "packed" else x.pad(float("nan")))
            torch.testing.assert_close(got.tokens(), expected)
            mine = gradients(got.tokens(), [x.values, *ours.parameters()])
            for one, other in zip(mine, gradients(expected, [packed.values, *peer.parameters()]), strict=True):
                torch.testing.assert_close(one, other)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ours, name), getattr(peer, name))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lengths", [[0, 0], [1], [0, 1, 0]])
def test_fewer_than_two_tokens_use_the_running_statistics_unchanged(lengths: list[int], layout: str) -> None:
    layer = moved(MaskedBatchNorm(4).double())
    applied(layer, laid_out([5, 4], layout))
    before = layer.running_mean.clone(), layer.running_var.clone()
    x = laid_out(lengths, layout)
    trained = applied(layer, x).tokens()
    assert (layer.running_mean.equal(before[0]), layer.running_var.equal(before[1])) == (True, True)
    assert torch.equal(trained, applied(layer.eval(), x).tokens())
    assert trained.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["layer", "batch"])
def test_norms_never_wait_for_the_device(name: Any, layout: str) -> None:
    x = laid_out([5, 0, 3], layout)
    with NoWaiting():
        applied(normalisation(name, 4).double(), x).tokens().sum().backward()


def test_half_precision_keeps_statistics_in_full() -> None:
    layer = MaskedBatchNorm(4)
    x = laid_out([50, 70], "packed")
    exact = applied(layer, x.map(Tensor.float)).values
    with torch.autocast("cpu", torch.bfloat16):
        rounded = applied(MaskedBatchNorm(4), x.map(Tensor.bfloat16))
    assert layer.running_var.dtype == torch.float32
    torch.testing.assert_close(rounded.values.float(), exact, rtol=0.05, atol=0.05)
