"""Attention against torch's own, and against loops over rows, heads and queries; masks; rows without tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from contract import NoWaiting, check_contract, rows_of
from torch import Tensor, nn

from runner.layers import attention
from runner.layers.attention import SelfAttention, additive_scores, both, causal_mask, length_mask
from runner.ragged import Ragged

SCORES = ("dot", "scaled_dot", "additive")
LENGTHS = [5, 1, 8, 3]


def tokens(lengths: list[int] = LENGTHS, dtype: torch.dtype = torch.float64) -> Ragged:
    torch.manual_seed(0)
    return Ragged(torch.randn(sum(lengths), 6, dtype=dtype), rows_of(lengths), "packed")


def layer_of(score: Any, causal: bool = False, dropout: float = 0.0) -> SelfAttention:
    torch.manual_seed(1)
    return SelfAttention(6, 2, causal, score, dropout).double()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", SCORES)
def test_attention_keeps_the_contract(score: str, causal: bool) -> None:
    layer = layer_of(score, causal)
    check_contract(layer, 6, list(layer.parameters()))


@pytest.mark.parametrize("causal", [False, True])
def test_scaled_dots_equal_torchs_own(causal: bool) -> None:
    layer = layer_of("scaled_dot", causal)
    peer = nn.MultiheadAttention(6, 2, batch_first=True).double()
    assert peer.in_proj_weight is not None
    peer.in_proj_weight.data.copy_(layer.queries_keys_values.weight.data)
    peer.in_proj_bias.data.copy_(layer.queries_keys_values.bias.data)
    peer.out_proj.weight.data.copy_(layer.output.weight.data)
    peer.out_proj.bias.data.copy_(layer.output.bias.data)
    x = tokens()
    for row, mine in zip(x.values.split(LENGTHS), layer(x).values.split(LENGTHS), strict=True):
        hidden = torch.ones(len(row), len(row), dtype=torch.bool).triu(1) if causal else None
        torch.testing.assert_close(mine, peer(row[None], row[None], row[None], attn_mask=hidden)[0][0])


def by_definition(layer: SelfAttention, row: Tensor) -> Tensor:
    """(length, D) -> (length, D), one head, query and key at a time."""
    queries, keys, values = layer.queries_keys_values(row).chunk(3, dim=1)
    attended = []
    for t in range(len(row)):
        heads = []
        for head in range(2):
            part = slice(head * 3, head * 3 + 3)
            seen = range(t + 1 if layer.causal else len(row))
            pairs = [(queries[t, part], keys[s, part]) for s in seen]
            if layer.score == "additive":
                scores = [
                    sum(v * math.tanh(n) for v, n in zip(layer.additive[head], q + k, strict=True)) for q, k in pairs
                ]
            else:
                scores = [float(q @ k) / (math.sqrt(3) if layer.score == "scaled_dot" else 1.0) for q, k in pairs]
            weights = [math.exp(score) for score in scores]
            heads.append(sum(w / sum(weights) * values[s, part] for w, s in zip(weights, seen, strict=True)))
        attended.append(layer.output(torch.cat(heads)))  # type: ignore[arg-type]
    return torch.stack(attended)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_what_their_names_say(score: str, causal: bool) -> None:
    layer = layer_of(score, causal)
    with torch.no_grad():
        expected = torch.cat([by_definition(layer, row) for row in tokens().values.split(LENGTHS)])
        torch.testing.assert_close(layer(tokens()).values, expected)


def test_additive_scores_in_steps_are_those_at_once_and_so_are_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    parts = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 2, 7, 3), (2, 2, 7, 3), (2, 3))
    ]
    outcomes = []
    for most in (2**22, 2 * 2 * 7 * 3 * 2, 1):  # all queries at once, two, one
        monkeypatch.setattr(attention, "ADDITIVE_NUMBERS", most)
        scores = additive_scores(*parts)
        outcomes.append([scores.detach(), *torch.autograd.grad(scores.square().sum(), parts)])
    for other in outcomes[1:]:
        for mine, theirs in zip(other, outcomes[0], strict=True):
            torch.testing.assert_close(mine, theirs)


def test_additive_scores_keep_less_than_all_sums() -> None:
    """What autograd keeps for the backward pass, in numbers."""
    parts = [torch.randn(4, 2, 512, 16, requires_grad=True) for _ in range(2)]
    kept: dict[int, int] = {}

    def note(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes() // 4
        return one

    with torch.autograd.graph.saved_tensors_hooks(note, lambda one: one):
        additive_scores(*parts, torch.randn(2, 16, requires_grad=True))
    assert sum(kept.values()) < 4 * 2 * 512 * 512 * 16 / 8


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seeds", [None, torch.arange(3)])
def test_rows_without_tokens_are_finite_and_so_are_all_gradients(score: str, causal: bool, seeds: Any) -> None:
    layer = layer_of(score, causal, dropout=0.5)
    rows = rows_of([0, 3, 0], widen=2).with_seeds(seeds)
    values = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    output = layer(Ragged(values, rows, "packed").pad(float("nan")))
    assert output.values.isfinite().all()
    output.values.sum().backward()  # of padding, too
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in layer.parameters())


def test_masks() -> None:
    rows = rows_of([1, 0, 2])
    length = length_mask(rows)
    assert length is not None
    assert length.tolist() == [[[True, False]], [[True, True]], [[True, True]]]  # an empty row sees something
    assert causal_mask(3, rows.device).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert both(rows).int().tolist() == [[[1, 0], [1, 0]], [[1, 0], [1, 1]], [[1, 0], [1, 1]]]
    assert length_mask(rows_of([2, 2])) is None
    assert both(rows_of([2, 2])).int().tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", SCORES)
def test_attention_never_waits_for_the_device(score: str, causal: bool, layout: str) -> None:
    x = tokens()
    x = x.with_values(x.values.requires_grad_())
    with NoWaiting():
        layer_of(score, causal, 0.1)(x if layout == "packed" else x.pad()).values.sum().backward()


@pytest.mark.parametrize("score", SCORES)
def test_attention_runs_in_mixed_precision(score: Any) -> None:
    layer, x = layer_of(score).float(), tokens(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x).values
    torch.testing.assert_close(rounded.float(), layer(x).values, rtol=0.05, atol=0.05)
