"""Layers on a GPU: their contract there, and what a CPU says of the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.layers.attention import SelfAttention
from runner.layers.attention_window import AttentionWindow
from runner.layers.chunked_softmax import vocabulary_loss
from runner.layers.convolution import Convolution
from runner.layers.crf.chain import AllowedTransitions
from runner.layers.crf.crf import Crf
from runner.layers.dropout import Dropout, LockedDropout
from runner.layers.pooling import Pooling, pooling
from runner.layers.recurrent.recurrence import Recurrence
from runner.ragged.ragged import Ragged
from tests.helpers.contract import check_contract, lay_out

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
GPU = torch.device("cuda", 0)
SIZE, LENGTHS = 6, (5, 0, 1, 3, 40)
POOLS: tuple[Pooling, ...] = ("mean", "max", "min", "sum", "sqrt", "unit_sum", "last", "first", "attention")


def attention(**options: Any) -> Callable[[], nn.Module]:
    return lambda: Attention(**{"score": "scaled_dot", "rotary": False, "causal": False, "dropout": 0.0} | options)


class Attention(nn.Module):
    """Attention with the reach of its rows."""

    def __init__(self, score: Any, rotary: bool, causal: bool, dropout: float) -> None:
        super().__init__()
        self.attention, self.causal = SelfAttention(SIZE, 3, score, rotary, dropout), causal

    def forward(self, x: Ragged) -> Ragged:
        result: Ragged = self.attention(x, AttentionWindow(x.rows, self.causal, None, None, 0), None)[0]
        return result


LAYERS: dict[str, Callable[[], Any]] = {
    **{
        f"{cell}{' reversed' if reverse else ''}{' with a state' if state is not None else ''}": partial(
            lambda cell, reverse, state: Bound(Recurrence(cell, SIZE, 5, reverse), state), cell, reverse, state
        )
        for cell in ("rnn", "gru", "lstm")
        for reverse in (False, True)
        for state in (None, ())
    },
    **{pool: partial(pooling, pool, SIZE) for pool in POOLS},
    "convolution": lambda: Bound(Convolution(SIZE, 4, 3, causal=False), None),
    "causal convolution": lambda: Bound(Convolution(SIZE, 4, 4, causal=True), None),
    "attention": attention(),
    "causal attention": attention(causal=True),
    "rotary attention": attention(rotary=True),
    "additive attention": attention(score="additive"),
    "attention that drops": attention(dropout=0.3),
    "dropout": lambda: Of(Dropout(0.4)),
    "locked dropout": lambda: Of(LockedDropout(0.4)),
}


class Bound(nn.Module):
    """A layer with its second argument."""

    def __init__(self, layer: nn.Module, second: Any) -> None:
        super().__init__()
        self.layer, self.second = layer, second

    def forward(self, x: Ragged) -> Any:
        return self.layer(x, self.second)


class Of(nn.Module):
    """Dropout as a layer of rows."""

    def __init__(self, dropout: Dropout | LockedDropout) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, x: Ragged) -> Ragged:
        return self.dropout.apply_to(x)


def made(name: str) -> Any:
    torch.manual_seed(3)
    layer = LAYERS[name]()
    return layer.double() if isinstance(layer, nn.Module) else layer


def parameters(layer: Any) -> list[Tensor]:
    return list(layer.parameters()) if isinstance(layer, nn.Module) else []


@pytest.mark.parametrize("name", LAYERS)
def test_the_contract_holds_on_a_gpu(name: str) -> None:
    layer = made(name)
    layer = layer.to(GPU) if isinstance(layer, nn.Module) else layer
    check_contract(layer, SIZE, parameters(layer), atol=1e-9, device=GPU)


def outcome(layer: Any, tokens: Tensor, layout: Any, device: torch.device) -> list[Tensor]:
    """What comes out of real tokens, and the gradients of inputs and parameters, on the CPU."""
    layer = layer.to(device) if isinstance(layer, nn.Module) else layer
    x = lay_out(tokens.to(device).requires_grad_(), LENGTHS, layout, 0.0, 1)
    result = layer(x)
    result = result[0] if isinstance(result, tuple) else result
    values = result.tokens() if isinstance(result, Ragged) else result
    grads = torch.autograd.grad(values.square().sum(), [x.values, *parameters(layer)], allow_unused=True)
    inputs = x.with_values(grads[0]).tokens()
    return [item.detach().cpu() for item in (values, inputs, *grads[1:]) if item is not None]


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_gpu_says_what_a_cpu_says(name: str, layout: str) -> None:
    torch.manual_seed(5)
    tokens = torch.randn(sum(LENGTHS), SIZE, dtype=torch.float64)
    both = [outcome(made(name), tokens, layout, device) for device in (torch.device("cpu"), GPU)]
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("constrain", ["none", "both"])
@pytest.mark.parametrize("n_tags", [2, 17])
def test_a_crf_is_the_same(n_tags: int, constrain: Any) -> None:
    torch.manual_seed(1)
    allowed = AllowedTransitions.allow_all(n_tags)
    follow = allowed.transitions.clone()
    follow[0, 1] = False
    crf = Crf(n_tags, AllowedTransitions(allowed.start, follow, allowed.end), constrain).double()
    scores, tags = torch.randn(sum(LENGTHS), n_tags, dtype=torch.float64), torch.full((sum(LENGTHS),), n_tags - 1)
    results = []
    for device in (torch.device("cpu"), GPU):
        crf.to(device).zero_grad()
        x = lay_out(scores.to(device).requires_grad_(), LENGTHS, "packed", 0.0, 1)
        nll = crf.negative_log_likelihood(x, tags.to(device))
        nll.sum().backward()
        grads = [parameter.grad for parameter in crf.parameters()]
        results.append([item.detach().cpu() for item in (nll, *grads, crf.decode(x), crf.marginals(x))])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-9, atol=1e-9)


def test_the_loss_of_a_vocabulary_is_the_same() -> None:
    torch.manual_seed(1)
    vectors, weight, bias = torch.randn(50, 8), torch.randn(300, 8), torch.randn(300)
    right, results = torch.randint(300, (50,)), []
    for device in (torch.device("cpu"), GPU):
        given = [item.double().to(device).requires_grad_() for item in (vectors, weight, bias)]
        loss = vocabulary_loss(*given, right.to(device), chunk=13, precision="same")
        results.append([loss.detach().cpu(), *(item.cpu() for item in torch.autograd.grad(loss, given))])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-9, atol=1e-9)
