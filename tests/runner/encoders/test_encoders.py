"""Every encoder and embedding keeps the contract; causal encoders see no later token; streams carry on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from contract import check_contract, rows_of
from torch import nn

from runner.build import build
from runner.errors import HydromelError
from runner.ragged import Ragged, Rows
from runner.task import START
from runner.vocab import Vocab

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = {"hidden": 5, "filters": 3, "size": 8, "heads": 2, "feedforward": 12, "layers": 2}
ENCODERS = sorted(path.stem for path in (CONFIGS / "encoder").glob("*.yaml"))
SIZE = 6


def encoder(name: str, causal: bool, **changed: Any) -> nn.Module:
    node = yaml.safe_load((CONFIGS / "encoder" / f"{name}.yaml").read_text(encoding="utf-8"))
    small = {key: value for key, value in SMALL.items() if key in node}
    if name == "bow":
        small = {"hidden": [5]}
    module = build(node | small | changed, "encoder", {"input_size": SIZE, "causal": causal})
    assert isinstance(module, nn.Module)
    return module.double()


def test_there_are_encoders() -> None:
    assert {"bow", "conv", "rnn", "transformer"} <= set(ENCODERS)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_keeps_the_contract(name: str) -> None:
    module = encoder(name, causal=False)
    check_contract(lambda x: module(x, None), SIZE, list(module.parameters()))


@pytest.mark.parametrize("changed", [{"positions": "learned"}, {"positions": "none"}])
def test_other_positions_keep_the_contract(changed: dict[str, Any]) -> None:
    module = encoder("transformer", causal=True, **changed)
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
    with pytest.raises(HydromelError, match=r"bidirectional|one vector a row"):
        encoder(name, causal=True)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("window", [1, 3, 4])
def test_windows_that_carry_a_state_equal_the_whole_rows(name: str, layout: str, window: int) -> None:
    module = encoder(name, causal=True)
    lengths = [10, 7, 0, 10]  # the second row ends early, the third never begins
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


def test_embeddings_are_looked_up_alike_in_both_layouts() -> None:
    vocabs = {"words": Vocab(("<pad>", "<unk>", "a", "b"), 1), "pos": Vocab(("<pad>", "<unk>", "N"), 1)}
    found = sorted((CONFIGS / "embedding").glob("*.yaml"))
    assert found
    for path in found:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
        module = build(node, "embedding", {"vocabs": vocabs}).double()
        rows = rows_of((3, 0, 1), widen=2)
        ids = {
            "words": torch.tensor([1, 2, 3, 2], dtype=torch.int32),
            "pos": torch.tensor([2, 2, 1, 2], dtype=torch.int32),
        }
        packed = module({name: Ragged(value, rows, "packed") for name, value in ids.items()})
        padded = module({name: Ragged(value, rows, "packed").pad() for name, value in ids.items()})
        assert packed.values.shape == (4, module.output_size)
        torch.testing.assert_close(padded.tokens(), packed.values, rtol=0, atol=0)
        assert padded.values[~rows.mask].abs().sum() == 0  # <pad> is the zero vector


def test_an_unknown_feature_is_named() -> None:
    node = yaml.safe_load((CONFIGS / "embedding" / "word.yaml").read_text(encoding="utf-8"))
    with pytest.raises(HydromelError, match=r"feature 'wrods' is unknown .* did you mean 'words'"):
        build(node | {"feature": "wrods"}, "embedding", {"vocabs": {"words": Vocab(("<pad>", "<unk>"), 1)}})
