"""Causal encoders carry a state: rows read in any pieces give the outputs of whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.encoders.carried_state import detach_state, select_state
from runner.interfaces import START, State
from runner.ragged.ragged import Ragged
from tests.helpers.composed import node_of
from tests.helpers.contract import NoWaiting, rows_of

SIZE = 6
SMALL = {"hidden": 5, "filters": 3, "size": 8, "heads": 2, "feedforward": 12, "layers": 2}
LENGTHS = (10, 7, 0, 1, 12)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    ("rnn", {}),
    ("lstm", {"shortcut": "residual"}),
    ("gru", {}),
    ("conv", {}),
    ("conv", {"widths": [1]}),
    ("conv", {"widths": [2, 5], "shortcut": "highway", "layer_norm": True, "layers": 3}),
    ("transformer", {}),
    ("transformer", {"positions": "learned", "size": 6}),
    ("transformer", {"positions": "none", "score": "additive", "memory": 2}),
    ("transformer", {"positions": "none", "score": "dot"}),
    ("transformer", {"positions": "rotary"}),
    ("transformer", {"positions": "rotary", "memory": 1, "layers": 3}),
    ("transformer", {"positions": "rotary", "memory": 3}),
    ("transformer", {"memory": 5}),
    ("transformer", {"memory": 100}),
]
ONE_OF_EACH = [("none", {}), ("lstm", {}), ("conv", {}), ("transformer", {"positions": "rotary", "memory": 4})]
cases = pytest.mark.parametrize(("name", "changed"), CASES)
one_of_each = pytest.mark.parametrize(("name", "changed"), ONE_OF_EACH)
layouts = pytest.mark.parametrize("layout", ["packed", "padded"])


def encoder(name: str, changed: dict[str, Any]) -> nn.Module:
    node = node_of("encoder", name)
    small = {key: value for key, value in SMALL.items() if key in node}
    torch.manual_seed(1)
    module = build(node | small | changed, "encoder", {"input_size": SIZE, "causal": True})
    assert isinstance(module, nn.Module)
    return module.double()


def texts(lengths: Sequence[int] = LENGTHS) -> list[Tensor]:
    torch.manual_seed(2)
    return [torch.randn(length, SIZE, dtype=torch.float64) for length in lengths]


def read(module: nn.Module, pieces: Sequence[Tensor], state: State, layout: str) -> tuple[list[Tensor], State]:
    """Return the outputs of each row; padding is NaN."""
    lengths = [len(piece) for piece in pieces]
    x = Ragged(torch.cat(list(pieces)), rows_of(lengths), "packed")
    output, state = module(x if layout == "packed" else x.pad(float("nan")), state)
    return list(output.tokens().split(lengths)), state


def in_pieces(module: nn.Module, rows: Sequence[Tensor], cuts: np.ndarray[Any, Any], layout: str) -> list[Tensor]:
    """Window w of row r is its tokens from cuts[r, w] to cuts[r, w + 1]."""
    got: list[list[Tensor]] = [[] for _ in rows]
    state: State = START
    for begins, ends in zip(cuts.T, cuts.T[1:], strict=False):
        pieces = [row[begin:end] for row, begin, end in zip(rows, begins, ends, strict=True)]
        answers, state = read(module, pieces, state, layout)
        for item, answer in zip(got, answers, strict=True):
            item.append(answer)
    return [torch.cat(item) for item in got]


def windows(lengths: Sequence[int], window: int) -> np.ndarray[Any, Any]:
    """Cut every row into windows of one length, as streams are: (rows, windows + 1)."""
    steps = np.arange(0, max(lengths) + window, window)
    return np.minimum(steps, np.array(lengths)[:, None])


def at_random(lengths: Sequence[int], pieces: int) -> np.ndarray[Any, Any]:
    """Cut every row anywhere, with some empty pieces."""
    rng = np.random.default_rng(0)
    inner = [np.sort(rng.integers(0, length + 1, pieces - 1)) for length in lengths]
    return np.column_stack([np.zeros(len(lengths), dtype=np.int64), np.array(inner), lengths])


@cases
@layouts
def test_windows_of_a_row_give_the_output_of_the_whole_row(name: str, changed: dict[str, Any], layout: str) -> None:
    module, rows = encoder(name, changed), texts()
    expected = read(module, rows, None, layout)[0]
    for cuts in (windows(LENGTHS, 12), windows(LENGTHS, 1), windows(LENGTHS, 5), at_random(LENGTHS, 4)):
        for mine, theirs in zip(in_pieces(module, rows, cuts, layout), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def weighted(answers: Tensor) -> Tensor:
    """Return a weighted sum: the plain sum of a normalised vector is constant and has no gradient."""
    return (answers * torch.linspace(1, 2, answers.numel()).view_as(answers).to(answers)).sum()


@cases
@layouts
def test_gradients_through_carried_states_equal_those_of_whole_rows(
    name: str, changed: dict[str, Any], layout: str
) -> None:
    module = encoder(name, changed)
    outcomes = []
    for cuts in (windows(LENGTHS, 12), at_random(LENGTHS, 4)):
        rows = [row.requires_grad_() for row in texts()]
        total = weighted(torch.cat(in_pieces(module, rows, cuts, layout)))
        asked = [*rows, *module.parameters()]
        outcomes.append(torch.autograd.grad(total, asked, allow_unused=True, materialize_grads=True))
    for mine, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@cases
def test_a_detached_state_has_the_same_values_without_history(name: str, changed: dict[str, Any]) -> None:
    module = encoder(name, changed)
    first, second = (row.requires_grad_() for row in texts((5, 4)))
    state = read(module, [first], START, "packed")[1]
    for item in (state, detach_state(state)):
        answer = read(module, [second], item, "packed")[0][0]
        total = weighted(answer)
        (into_the_past,) = torch.autograd.grad(total, first, allow_unused=True, materialize_grads=True)
        assert bool(into_the_past.abs().max() > 1e-6) == (
            item is state and name != "none" and changed.get("widths") != [1]
        )
        torch.testing.assert_close(answer, read(module, [second], state, "packed")[0][0])


@cases
@layouts
def test_rows_of_a_state_can_be_selected_repeated_and_reordered(
    name: str, changed: dict[str, Any], layout: str
) -> None:
    module, rows = encoder(name, changed), texts()
    state = read(module, rows, START, layout)[1]
    chosen = np.array([3, 0, 0, 2, 4])
    more = texts((2, 3, 1, 4, 0))
    got = read(module, more, select_state(state, chosen), layout)[0]
    for row, piece, mine in zip(chosen, more, got, strict=True):
        expected = read(module, [torch.cat([rows[row], piece])], None, layout)[0][0][len(rows[row]) :]
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)
    assert all(not len(leaf) for leaf in leaves(select_state(state, chosen[:0])))
    assert select_state(START, chosen) == START


def leaves(state: State) -> list[Any]:
    return [leaf for item in state for leaf in leaves(item)] if isinstance(state, list | tuple) else [state]


@one_of_each
@layouts
def test_rows_of_a_state_are_independent(name: str, changed: dict[str, Any], layout: str) -> None:
    module, rows, more = encoder(name, changed), texts(), texts((2, 3, 1, 4, 5))
    state = read(module, rows, START, layout)[1]
    expected = read(module, more, state, layout)[0]
    for leaf in leaves(state):
        if isinstance(leaf, Tensor):
            leaf.data[[0, 2]] = torch.nan
    got = read(module, more, state, layout)[0]
    for row in (1, 3, 4):
        assert torch.equal(got[row], expected[row])
    assert got[0].isfinite().all() == (name == "none")


@one_of_each
@layouts
def test_carrying_a_state_never_synchronises(name: str, changed: dict[str, Any], layout: str) -> None:
    module = encoder(name, changed)
    tokens = torch.randn(6, SIZE, dtype=torch.float64, requires_grad=True)
    state: State = START
    for lengths in ((3, 0, 3), (1, 4, 1), (2, 2, 2)):
        rows = rows_of(lengths)
        with NoWaiting(on_host=[rows.time_major.batch_sizes]):
            x = Ragged(tokens, rows, "packed")
            output, state = module(x if layout == "packed" else x.pad(), state)
            state = select_state(state, np.array([2, 0, 1]))
            output.values.sum().backward(retain_graph=True)


@one_of_each
def test_the_cost_of_a_step_does_not_grow_with_the_text(name: str, changed: dict[str, Any]) -> None:
    """Count the tokens that pass layers with weights: earlier text must not be computed again."""
    module = encoder(name, changed)
    state = read(module, texts((40, 30)), START, "packed")[1]
    passed: list[int] = []

    def count(layer: nn.Module, args: tuple[Any, ...], _: Any) -> None:
        sequence = args[0].data if isinstance(args[0], tuple) else args[0]
        passed.append(sequence.numel() // sequence.shape[-1])

    for item in module.modules():
        if isinstance(item, nn.Linear | nn.LSTM):
            item.register_forward_hook(count)
    for layout in ("packed", "padded"):
        passed.clear()
        with FlopCounterMode(display=False) as operations:
            state = read(module, texts((1, 1)), state, layout)[1]
        if name == "conv":  # its matrix products are not modules
            weights = sum(item.weight.numel() for item in module.modules() if isinstance(item, nn.Conv1d))
            assert operations.get_total_flops() == 2 * 2 * weights
        else:
            assert bool(passed) == (name != "none")
            assert all(item == 2 for item in passed), passed


@pytest.mark.parametrize("memory", [1, 4])
def test_a_memory_bounds_the_state(memory: int) -> None:
    module = encoder("transformer", {"memory": memory})
    state: State = START
    for window in (3, 1, 7):
        state = read(module, texts((window, 1)), state, "packed")[1]
        assert all(item.shape[1] <= memory for item in state[1])
    assert state[0].tolist() == [11, 3]
    assert [item.shape for item in state[1]] == [(2, memory, 16)] * 2


def test_the_past_of_short_rows_is_no_wider_than_they_are() -> None:
    module = encoder("transformer", {})
    state = read(module, texts((2, 9)), START, "packed")[1]
    assert state[1][0].shape[1] == 9
    state = read(module, texts((1,)), select_state(state, np.array([0])), "packed")[1]
    assert state[1][0].shape[1] == 3


def test_learned_positions_count_on_from_window_to_window() -> None:
    module = encoder("transformer", {"positions": "learned", "max_positions": 7})
    state = read(module, texts((4, 2)), START, "packed")[1]
    read(module, texts((3, 5)), state, "padded")
    with pytest.raises(HydromelError, match="max_positions=7, but a row has 8 tokens"):
        read(module, texts((4, 1)), state, "padded")


@one_of_each
def test_states_are_carried_in_mixed_precision(name: str, changed: dict[str, Any]) -> None:
    module = encoder(name, changed).float()
    rows = [row.float() for row in texts()]
    expected = read(module, rows, None, "packed")[0]
    state = read(module, [row[:3] for row in rows], START, "packed")[1]  # float32
    with torch.autocast("cpu", torch.bfloat16):
        for part in (slice(3, 5), slice(5, None)):
            got, state = read(module, [row[part] for row in rows], state, "packed")
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs[5:], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", ["conv", "transformer"])
def test_an_encoder_that_sees_what_follows_carries_no_state(name: str) -> None:
    node = node_of("encoder", name)
    module = build(node, "encoder", {"input_size": SIZE, "causal": False}).double()
    with pytest.raises(ValueError, match="only causal"):
        read(module, texts(), START, "packed")


@pytest.mark.parametrize(
    ("changed", "causal", "message"),
    [
        ({"memory": 3}, False, "memory=3 needs a causal encoder"),
        ({"positions": "rotary", "score": "additive"}, True, "positions=rotary does not work with score=additive"),
        ({"positions": "rotary", "size": 6, "heads": 2}, True, "size=6 / heads=2 must be even for positions=rotary"),
    ],
)
def test_incompatible_options_are_refused(changed: dict[str, Any], causal: bool, message: str) -> None:
    node = node_of("encoder", "transformer")
    with pytest.raises(HydromelError, match=f"encoder: {message}"):
        build(node | changed, "encoder", {"input_size": SIZE, "causal": causal})
