"""Every encoder keeps the contract, causal encoders see no later token, and streams continue exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.interfaces import START
from runner.layers.attention import sinusoids
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from tests.helpers.composed import node_of
from tests.helpers.contract import NoWaiting, check_contract, rows_of

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = {"hidden": 5, "filters": 3, "size": 8, "heads": 2, "feedforward": 12, "layers": 2}
ENCODERS = sorted(path.stem for path in (CONFIGS / "encoder").glob("*.yaml"))
SIZE = 6


def encoder(name: str, causal: bool, **changed: Any) -> nn.Module:
    node = node_of("encoder", name)
    small = {key: value for key, value in SMALL.items() if key in node}
    if name == "bow":
        small = {"hidden": [5]}
    module = build(node | small | changed, "encoder", {"input_size": SIZE, "causal": causal})
    assert isinstance(module, nn.Module)
    return module.double()


def test_there_are_encoders() -> None:
    assert {"bow", "conv", "rnn", "transformer"} <= set(ENCODERS)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_every_encoder_keeps_the_contract_also_with_seeded_dropout(name: str, dropout: float) -> None:
    module = encoder(name, causal=False, dropout=dropout)
    check_contract(lambda x: module(x, None), SIZE, list(module.parameters()))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_no_encoder_waits_for_the_device(name: str, layout: str) -> None:
    module = encoder(name, causal=False)
    values = torch.randn(9, SIZE, dtype=torch.float64, requires_grad=True)
    for lengths in ((5, 0, 4), (3, 3, 3)):
        rows = rows_of(lengths)
        with NoWaiting(on_host=[rows.time_major.batch_sizes]):
            x = Ragged(values, rows, "packed")
            module(x if layout == "packed" else x.pad(), None)[0].values.sum().backward()


@pytest.mark.parametrize("name", ENCODERS)
def test_the_unmasked_layout_runs_and_is_wrong(name: str) -> None:
    """`unmasked` lets padding affect short rows; only rows of full length keep correct outputs."""
    module = encoder(name, causal=False)
    table = torch.randn(4, SIZE, dtype=torch.float64)
    ids = {"words": Ragged(torch.tensor([1, 2, 3, 2, 1]), rows_of((4, 1)), "packed")}
    batch = Batch(ids, torch.zeros(2, dtype=torch.int64), np.arange(2))
    right, wrong = (
        module(item.features["words"].map(table.__getitem__), None)[0].pad().values
        for item in (batch.pad(), batch.unmasked())
    )
    torch.testing.assert_close(wrong[0], right[0])
    # a forward recurrence reads padding only after the end of a row
    not_yet = name in ("lstm", "gru", "none")  # and the identity encoder never reads another token
    assert torch.allclose(wrong[1, 0], right[1, 0]) == not_yet


@pytest.mark.parametrize("name", ENCODERS)
def test_dropout_acts_in_training_alone(name: str) -> None:
    module = encoder(name, causal=False, dropout=0.5)
    x = Ragged(torch.randn(9, SIZE, dtype=torch.float64), rows_of((5, 4)), "packed")
    first, again = (module(x, None)[0].values for _ in range(2))
    assert not torch.equal(first, again)
    module.eval()
    assert torch.equal(*(module(x, None)[0].values for _ in range(2)))


def test_recurrent_outputs_are_dropped_behind_every_layer() -> None:
    module = encoder("lstm", causal=True, layers=1, dropout=0.5)
    x = Ragged(torch.randn(9, SIZE, dtype=torch.float64), rows_of((5, 4)), "packed")
    assert (module(x, None)[0].values == 0).any()


@pytest.mark.parametrize(("name", "function"), [("relu", F.relu), ("tanh", torch.tanh), ("gelu", F.gelu)])
def test_parallel_convolutions_are_concatenated_and_activated(name: str, function: Any) -> None:
    module = encoder("conv", causal=False, activation=name, layers=1)
    x = Ragged(torch.randn(9, SIZE, dtype=torch.float64), rows_of((5, 4)), "packed")
    expected = torch.cat([function(layer(x, None).values) for layer in module.layers[0]], dim=1)  # type: ignore[operator,union-attr,index]
    torch.testing.assert_close(module(x, None)[0].values, expected)


STACKS = [
    {"shortcut": "residual", "layer_norm": True},
    {"shortcut": "highway"},
    {"shortcut": "residual", "locked_dropout": 0.3},
    {"locked_dropout": 0.5, "dropout": 0.2, "layer_norm": True},
]


@pytest.mark.parametrize("name", ["blstm", "gru", "conv"])
@pytest.mark.parametrize("options", STACKS)
def test_stacks_keep_the_contract(name: str, options: dict[str, Any]) -> None:
    module = encoder(name, causal=False, layers=3, **options)
    check_contract(lambda x: module(x, None), SIZE, list(module.parameters()))


@pytest.mark.parametrize("name", ["blstm", "conv"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_no_stack_waits_for_the_device(name: str, layout: str) -> None:
    module = encoder(name, causal=False, shortcut="highway", layer_norm=True, locked_dropout=0.5)
    rows = rows_of((5, 0, 4)).with_seeds(torch.arange(3))
    with NoWaiting(on_host=[rows.time_major.batch_sizes]):
        x = Ragged(torch.randn(9, SIZE, dtype=torch.float64), rows, "packed")
        module(x if layout == "packed" else x.pad(), None)[0].values.sum().backward()


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_locked_dropout_drops_the_same_features_at_all_tokens_of_a_row(layout: str) -> None:
    module = encoder("lstm", causal=True, hidden=40, locked_dropout=0.5)
    x = Ragged(torch.randn(9, SIZE, dtype=torch.float64), rows_of((5, 0, 4)), "packed")
    lost = module(x if layout == "packed" else x.pad(), None)[0].tokens() == 0
    for row in (lost[:5], lost[5:]):
        assert torch.equal(row, row[:1].expand_as(row))
        assert 0.2 < row.double().mean() < 0.8
    assert not torch.equal(lost[0], lost[5])
    module.eval()
    assert (module(x, None)[0].values != 0).all()


def test_a_stack_applies_its_layers_in_turn_with_shortcuts() -> None:
    module = encoder("conv", causal=False, layers=2, shortcut="residual", layer_norm=True)
    x = Ragged(torch.randn(9, SIZE, dtype=torch.float64), rows_of((5, 4)), "packed")
    expected = x
    for convolutions, joint in zip(module.layers, module.joints, strict=True):  # type: ignore[arg-type]
        joined = torch.cat([F.relu(convolution(expected, None).values) for convolution in convolutions], dim=1)
        joined = joined + joint.project(expected.values)
        expected = x.with_values(F.layer_norm(joined, joined.shape[1:], joint.norm.weight, joint.norm.bias))
    assert isinstance(module.joints[0].project, nn.Linear)  # type: ignore[index]
    assert isinstance(module.joints[1].project, nn.Identity)  # type: ignore[index]
    torch.testing.assert_close(module(x, None)[0].values, expected.values)


def test_a_highway_mixes_a_layers_input_and_output() -> None:
    module = encoder("lstm", causal=True, layers=1, hidden=SIZE, shortcut="highway")
    x = Ragged(torch.randn(9, SIZE, dtype=torch.float64), rows_of((5, 4)), "packed")
    joint, recurrence = module.joints[0], module.forwards[0]  # type: ignore[index]
    gate = torch.sigmoid(joint.gate(x.values))  # type: ignore[operator,union-attr]
    assert gate.mean() < 0.3  # initially most of the input is carried through
    expected = gate * recurrence(x, None)[0].values + (1 - gate) * x.values  # type: ignore[operator]
    torch.testing.assert_close(module(x, None)[0].values, expected)


def test_a_bag_of_words_is_a_mean_and_then_hidden_layers() -> None:
    module = encoder("bow", causal=False, hidden=[5, 3])
    tokens = torch.randn(9, SIZE, dtype=torch.float64)
    first, second = module.hidden.linears  # type: ignore[union-attr,misc]
    mean = torch.stack([tokens[:5].mean(0), tokens[5:].mean(0)])
    expected = F.relu(second(F.relu(first(mean))))
    torch.testing.assert_close(module(Ragged(tokens, rows_of((5, 4)), "packed"), None)[0].values, expected)


OTHERS: list[dict[str, Any]] = [
    {"positions": "learned"},
    {"positions": "none"},
    {"score": "dot"},
    {"score": "additive"},
]


@pytest.mark.parametrize("changed", [*OTHERS, {"norm": "batch"}])
def test_other_transformers_keep_the_contract(changed: dict[str, Any]) -> None:
    module = encoder("transformer", causal=True, **changed)
    module.train(changed.get("norm") != "batch")  # in training it depends on the batch by design
    check_contract(lambda x: module(x, None), SIZE, list(module.parameters()))


def test_rows_beyond_learned_positions_are_an_error() -> None:
    module = encoder("transformer", causal=False, positions="learned", max_positions=3)
    with pytest.raises(HydromelError, match="max_positions=3, but a row has 4"):
        module(Ragged(torch.randn(4, SIZE, dtype=torch.float64), rows_of((4,)), "packed"), None)


@pytest.mark.parametrize("name", ["conv", "rnn", "lstm", "gru", "transformer"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_a_causal_encoder_sees_no_later_token(name: str, layout: str) -> None:
    module = encoder(name, causal=True)
    tokens = torch.randn(9, SIZE, dtype=torch.float64)
    later = tokens.clone()
    later[3] += 1.0
    outputs = []
    for values in (tokens, later):
        x = Ragged(values, rows_of((5, 4)), "packed")
        outputs.append(module(x if layout == "packed" else x.pad(), None)[0].tokens())
    same = (outputs[0] == outputs[1]).all(dim=1) | torch.isclose(outputs[0], outputs[1], atol=1e-12).all(dim=1)
    assert same.tolist() == [True] * 3 + [False] * 2 + [True] * 4


@pytest.mark.parametrize("name", ["blstm", "bgru", "bow"])
def test_an_encoder_that_sees_what_follows_refuses_to_be_causal(name: str) -> None:
    with pytest.raises(HydromelError, match=r"bidirectional|one vector per row"):
        encoder(name, causal=True)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("window", [1, 3, 4])
def test_windows_that_carry_a_state_equal_the_whole_rows(name: str, layout: str, window: int) -> None:
    module = encoder(name, causal=True)
    lengths = [10, 7, 0, 10]  # the second row ends early, the third is empty
    torch.manual_seed(1)
    texts = [torch.randn(length, SIZE, dtype=torch.float64) for length in lengths]
    whole = module(Ragged(torch.cat(texts), rows_of(lengths), "packed"), None)[0].values.split(lengths)
    got: list[list[torch.Tensor]] = [[] for _ in texts]
    state = START
    for start in range(0, 10, window):
        pieces = [text[start : start + window] for text in texts]
        rows = Rows(np.array([len(piece) for piece in pieces]), torch.device("cpu"))
        x = Ragged(torch.cat(pieces), rows, "packed")
        output, state = module(x if layout == "packed" else x.pad(float("nan")), state)
        for row, piece in enumerate(output.tokens().split(rows.host_lengths.tolist())):
            got[row].append(piece)
    for row, expected in enumerate(whole):
        torch.testing.assert_close(torch.cat(got[row]), expected)


def test_the_state_of_a_window_carries_its_gradient_and_none_comes_without_one() -> None:
    module = encoder("lstm", causal=True)
    x = Ragged(torch.randn(5, SIZE, dtype=torch.float64), rows_of((3, 2)), "packed")
    assert module(x, None)[1] is None
    padded, packed = (module(item, START)[1] for item in (x.pad(), x))
    for mine, theirs in zip(padded, packed, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("causal", [False, True])
def test_the_transformer_equals_torchs_pre_norm_layers(causal: bool) -> None:
    module = encoder("transformer", causal, layers=2, positions="none", size=SIZE)
    names = {
        "attention.queries_keys_values.weight": "self_attn.in_proj_weight",
        "attention.queries_keys_values.bias": "self_attn.in_proj_bias",
        "attention.output": "self_attn.out_proj",
        "norms.0.norm": "norm1",
        "norms.1.norm": "norm2",
        "widen": "linear1",
        "narrow": "linear2",
    }
    peers = []
    for layer in module.layers:  # type: ignore[union-attr]
        peer = nn.TransformerEncoderLayer(SIZE, 2, 12, dropout=0.0, batch_first=True, norm_first=True).double()
        for ours, theirs in names.items():
            for name, value in peer.state_dict().items():
                if name.startswith(theirs):
                    value.copy_(layer.state_dict()[ours + name.removeprefix(theirs)].normal_())
        peers.append(peer)
    lengths = [4, 1, 6]
    tokens = torch.randn(sum(lengths), SIZE, dtype=torch.float64)
    got = module(Ragged(tokens, rows_of(lengths), "packed").pad(), None)[0].tokens().split(lengths)
    for row, mine in zip(tokens.split(lengths), got, strict=True):
        hidden = torch.ones(len(row), len(row), dtype=torch.bool).triu(1) if causal else None
        expected = row[None]
        for peer in peers:
            expected = peer(expected, src_mask=hidden)
        torch.testing.assert_close(mine, module.norm.norm(expected)[0])  # type: ignore[operator]


def test_sinusoids_are_those_of_the_paper() -> None:
    got = sinusoids(torch.arange(5), 6, torch.float64)
    for position in range(5):
        for place in range(6):
            angle = position / 10_000 ** (2 * (place // 2) / 6)
            expected = math.sin(angle) if place % 2 == 0 else math.cos(angle)
            assert got[position, place].item() == pytest.approx(expected, abs=1e-12)
