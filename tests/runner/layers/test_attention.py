"""Attention against torch's module and loops over rows, heads and queries; masks; rows without tokens."""

from __future__ import annotations

import cmath
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runner.layers import attention
from runner.layers.attention import SelfAttention, additive_scores
from runner.layers.attention_window import AttentionWindow
from runner.ragged import shapes
from runner.ragged.ragged import Ragged
from tests.helpers.contract import NoWaiting, check_contract, rows_of

SCORES = ("dot", "scaled_dot", "additive")
LENGTHS = [5, 1, 8, 3]


def tokens(lengths: list[int] = LENGTHS, dtype: torch.dtype = torch.float64) -> Ragged:
    torch.manual_seed(0)
    return Ragged(torch.randn(sum(lengths), 6, dtype=dtype), rows_of(lengths), "packed")


class Attention(nn.Module):
    """Return a layer with D = 6 and two heads, and its `AttentionWindow`."""

    def __init__(
        self, score: Any, causal: bool = False, dropout: float = 0.0, memory: int | None = None, rotary: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = SelfAttention(8 if rotary else 6, 2, score, rotary, dropout).double()
        self.causal, self.memory = causal, memory

    def forward(self, x: Ragged) -> Ragged:
        output: Ragged = self.layer(x, AttentionWindow(x.rows, self.causal, self.memory, None, 0), None)[0]
        return output


REACHES: list[dict[str, Any]] = [{"causal": False}, {"causal": True}, {"causal": True, "memory": 2}]


@pytest.mark.parametrize("window", REACHES)
@pytest.mark.parametrize(("score", "rotary"), [("scaled_dot", False), ("scaled_dot", True), ("additive", False)])
def test_attention_in_blocks_keeps_the_contract(
    score: str, rotary: bool, window: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "BLOCK_PAIRS", 0)
    layer = Attention(score, rotary=rotary, **window)
    check_contract(layer, 8 if rotary else 6, list(layer.parameters()))
    x = tokens()
    assert len(AttentionWindow(x.rows, window["causal"], None, None, 0).rectangles(x)) == len(LENGTHS)


def test_rows_draw_the_same_dropout_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Attention("scaled_dot", dropout=0.5).train()
    x = tokens()
    x = Ragged(x.values, x.rows.with_seeds(torch.arange(len(LENGTHS))), "packed")
    at_once = layer(x).values
    monkeypatch.setattr(shapes, "BLOCK_PAIRS", 0)
    torch.testing.assert_close(layer(x).values, at_once)
    assert not torch.allclose(layer.eval()(x).values, at_once)


@pytest.mark.parametrize("window", REACHES)
@pytest.mark.parametrize("score", SCORES)
def test_attention_keeps_the_contract(score: str, window: dict[str, Any]) -> None:
    layer = Attention(score, **window)
    check_contract(layer, 6, list(layer.parameters()))


@pytest.mark.parametrize("window", REACHES)
def test_rotary_attention_keeps_the_contract(window: dict[str, Any]) -> None:
    layer = Attention("scaled_dot", rotary=True, **window)
    check_contract(layer, 8, list(layer.parameters()))


@pytest.mark.parametrize("causal", [False, True])
def test_scaled_dots_equal_torchs_own(causal: bool) -> None:
    attended = Attention("scaled_dot", causal)
    layer = attended.layer
    peer = nn.MultiheadAttention(6, 2, batch_first=True).double()
    assert peer.in_proj_weight is not None
    peer.in_proj_weight.data.copy_(layer.queries_keys_values.weight.data)
    peer.in_proj_bias.data.copy_(layer.queries_keys_values.bias.data)
    peer.out_proj.weight.data.copy_(layer.output.weight.data)
    peer.out_proj.bias.data.copy_(layer.output.bias.data)
    x = tokens()
    for row, mine in zip(x.values.split(LENGTHS), attended(x).values.split(LENGTHS), strict=True):
        hidden = torch.ones(len(row), len(row), dtype=torch.bool).triu(1) if causal else None
        torch.testing.assert_close(mine, peer(row[None], row[None], row[None], attn_mask=hidden)[0][0])


def turned(vector: Tensor, position: int) -> list[float]:
    """Rotate pairs of features as complex numbers, by e^(i angle)."""
    size, numbers = len(vector), []
    for place in range(0, size, 2):
        angle = position / 10_000 ** (place / size)
        number = complex(float(vector[place]), float(vector[place + 1])) * cmath.exp(1j * angle)
        numbers += [number.real, number.imag]
    return numbers


def score_by_definition(layer: SelfAttention, head: int, query: Tensor, key: Tensor, t: int, s: int) -> float:
    if layer.score == "additive":
        return sum(float(v) * math.tanh(n) for v, n in zip(layer.additive[head], (query + key).tolist(), strict=True))
    pair = (turned(query, t), turned(key, s)) if layer.rotary else (query.tolist(), key.tolist())
    dot = sum(a * b for a, b in zip(*pair, strict=True))
    return dot / (math.sqrt(len(query)) if layer.score == "scaled_dot" else 1.0)


def by_definition(attention: Attention, row: Tensor) -> Tensor:
    """Attend within one row (length, D), one head, query and key at a time."""
    layer = attention.layer
    queries, keys, values = (item.chunk(2, dim=1) for item in layer.queries_keys_values(row).chunk(3, dim=1))
    attended = []
    for t in range(len(row)):
        first = 0 if attention.memory is None else max(0, t - attention.memory)
        seen = range(first, t + 1 if attention.causal else len(row))
        heads = []
        for head in range(2):
            scores = [score_by_definition(layer, head, queries[head][t], keys[head][s], t, s) for s in seen]
            weights = [math.exp(score) for score in scores]
            heads.append(sum(w / sum(weights) * values[head][s] for w, s in zip(weights, seen, strict=True)))
        attended.append(layer.output(torch.cat(heads)))  # type: ignore[arg-type]
    return torch.stack(attended)


@pytest.mark.parametrize("window", REACHES)
@pytest.mark.parametrize("score", SCORES)
def test_scores_are_what_their_names_say(score: str, window: dict[str, Any]) -> None:
    layer = Attention(score, **window)
    with torch.no_grad():
        expected = torch.cat([by_definition(layer, row) for row in tokens().values.split(LENGTHS)])
        torch.testing.assert_close(layer(tokens()).values, expected)


@pytest.mark.parametrize("window", REACHES)
@pytest.mark.parametrize("score", ["dot", "scaled_dot"])
def test_rotary_attention_turns_queries_and_keys_by_their_positions(score: str, window: dict[str, Any]) -> None:
    layer = Attention(score, rotary=True, **window)
    x = Ragged(torch.randn(sum(LENGTHS), 8, dtype=torch.float64), rows_of(LENGTHS), "packed")
    with torch.no_grad():
        expected = torch.cat([by_definition(layer, row) for row in x.values.split(LENGTHS)])
        torch.testing.assert_close(layer(x).values, expected)
        plain = Attention(score, **window)
        plain.layer = SelfAttention(8, 2, score, False, 0.0).double()  # type: ignore[arg-type]
        plain.layer.load_state_dict(layer.layer.state_dict())
        assert not torch.allclose(plain(x).values, expected, atol=1e-4)


def test_additive_scores_and_gradients_in_steps_equal_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_additive_scores_keep_less_than_all_sums_in_memory() -> None:
    """Count the numbers that autograd saves for the backward pass."""
    parts = [torch.randn(4, 2, 512, 16, requires_grad=True) for _ in range(2)]
    kept: dict[int, int] = {}

    def note(item: Tensor) -> Tensor:
        kept[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes() // 4
        return item

    with torch.autograd.graph.saved_tensors_hooks(note, lambda item: item):
        additive_scores(*parts, torch.randn(2, 16, requires_grad=True))
    assert sum(kept.values()) < 4 * 2 * 512 * 512 * 16 / 8


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seeds", [None, torch.arange(3)])
def test_rows_without_tokens_are_finite_and_so_are_all_gradients(score: str, causal: bool, seeds: Any) -> None:
    layer = Attention(score, causal, dropout=0.5)
    rows = rows_of([0, 3, 0], widen=2).with_seeds(seeds)
    values = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    output = layer(Ragged(values, rows, "packed").pad(float("nan")))
    assert output.values.isfinite().all()
    output.values.sum().backward()  # includes padding
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("score", SCORES)
def test_attention_never_waits_for_the_device(score: str, causal: bool, layout: str) -> None:
    x = tokens()
    x = x.with_values(x.values.requires_grad_())
    with NoWaiting():
        Attention(score, causal, 0.1)(x if layout == "packed" else x.pad()).values.sum().backward()


@pytest.mark.parametrize("score", SCORES)
def test_attention_runs_in_mixed_precision(score: Any) -> None:
    layer, x = Attention(score).float(), tokens(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(x).values
    torch.testing.assert_close(rounded.float(), layer(x).values, rtol=0.05, atol=0.05)
