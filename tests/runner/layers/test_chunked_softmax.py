"""Chunked cross entropy against a plain softmax, and without the full matrix of scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runner.layers.chunked_softmax import vocabulary_loss, vocabulary_nll

N, D, V = 23, 5, 40


def parts(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    vectors, weight, bias = (
        (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype).requires_grad_()
        for shape in ((N, D), (V, D), (V,))
    )
    return vectors, weight, bias, torch.randint(V, (N,), generator=generator)


def plain(vectors: Tensor, weight: Tensor, bias: Tensor, right: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(vectors, weight, bias), right, reduction="none")


@pytest.mark.parametrize("chunk", [1, 4, 23, 100])
def test_sum_and_gradients_are_those_of_one_softmax(chunk: int) -> None:
    *given, right = parts()
    expected = plain(*given, right).sum()
    by_hand = torch.autograd.grad(3.0 * expected, given)
    loss = vocabulary_loss(*given, right, chunk, "same")
    torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
    for mine, item in zip(torch.autograd.grad(3.0 * loss, given), by_hand, strict=True):
        torch.testing.assert_close(mine, item, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_each_token_and_its_gradient(chunk: int) -> None:
    *given, right = parts()
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    losses = vocabulary_nll(*given, right, chunk, "same")
    torch.testing.assert_close(losses, plain(*given, right), rtol=1e-13, atol=0)
    expected = torch.autograd.grad((weights * plain(*given, right)).sum(), given)
    for mine, item in zip(torch.autograd.grad((weights * losses).sum(), given), expected, strict=True):
        torch.testing.assert_close(mine, item, rtol=1e-12, atol=1e-13)
    with torch.inference_mode():
        torch.testing.assert_close(vocabulary_nll(*given, right, chunk, "same"), losses.detach(), rtol=1e-14, atol=0)


def test_scores_beyond_what_exp_can_hold() -> None:
    *given, right = parts(torch.float32, scale=60.0)
    exact = [item.detach().double().requires_grad_() for item in given]
    expected = plain(*exact, right).sum()
    loss = vocabulary_loss(*given, right, 4, "same")
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    by_hand = torch.autograd.grad(expected, exact)
    for mine, item in zip(torch.autograd.grad(loss, given), by_hand, strict=True):
        torch.testing.assert_close(mine.double(), item, rtol=1e-4, atol=1e-3)


def test_a_string_without_a_share() -> None:
    vectors, weight, bias, right = parts()
    never = torch.zeros(V, dtype=torch.float64)
    never[0] = -torch.inf
    loss = vocabulary_loss(vectors, weight, bias + never, right.clamp(min=1), 4, "same")
    by_weight, by_bias = torch.autograd.grad(loss, (weight, bias))
    assert not by_weight[0].any()
    assert by_bias[0] == 0
    assert by_weight.isfinite().all()


def test_bfloat16_is_near_and_summed_in_float32() -> None:
    *given, right = parts(torch.float32)
    loss = vocabulary_loss(*given, right, 4, "bfloat16")
    expected = plain(*given, right).sum()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-2, atol=0)
    by_hand = torch.autograd.grad(expected, given)
    for mine, item in zip(torch.autograd.grad(loss, given), by_hand, strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - item).norm() / item.norm()) < 2e-2


def test_batches_without_tokens() -> None:
    vectors, weight, bias, right = parts()
    none = vectors[:0].detach().requires_grad_()
    assert vocabulary_nll(none, weight, bias, right[:0], 4, "same").shape == (0,)
    loss = vocabulary_loss(none, weight, bias, right[:0], 4, "same")
    loss.backward()
    assert float(loss.detach()) == 0
    assert not weight.grad.any()


class Largest(TorchDispatchMode):
    """A mode that records the largest number of elements in the result of any operation."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple) else (out,):
            if isinstance(item, Tensor):
                self.numel = max(self.numel, item.numel())
        return out


@pytest.mark.parametrize("function", [vocabulary_loss, vocabulary_nll])
def test_scores_of_more_than_a_chunk_never_exist(function) -> None:  # type: ignore[no-untyped-def]
    *given, right = parts()
    with Largest() as largest:
        function(*given, right, 4, "same").sum().backward()
    assert largest.numel <= V * (D + 1) < N * V
    with Largest() as plainly:
        plain(*given, right).sum().backward()
    assert plainly.numel == N * V
