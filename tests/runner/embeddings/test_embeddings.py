"""Every embedding returns the same vectors and the same gradients in both layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.layers.dropout import Dropout
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, UNK, Vocab
from tests.helpers.composed import config
from tests.helpers.contract import rows_of

CONFIGS = Path(__file__).parents[3] / "configs" / "embedding"
EMBEDDINGS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
VOCABS = {
    "words": Vocab(("a", "b"), (PAD, UNK)),
    "pos": Vocab(("N",), (PAD, UNK)),
    "chars": Vocab(("a", "bab"), (PAD, UNK), alphabet="ab"),
}
IDS = {"words": [1, 2, 3, 2], "pos": [2, 2, 1, 2], "chars": [1, 2, 3, 2]}
PATHS = {  # of the file, where an embedding needs one
    "vectors": "path",
    "word_vectors": "parts.pretrained.path",
    "char_vectors": "parts.vectors.path",
    "word_char_vectors": "parts.vectors.path",
}


def test_there_are_embeddings() -> None:
    assert {"word", "word_pos"} <= set(EMBEDDINGS)


@pytest.mark.parametrize("name", EMBEDDINGS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_embeddings_are_equal_in_both_layouts(name: str, dropout: float, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("a 0.5 0.25\n", encoding="utf-8")
    files = [f"embedding.{PATHS[name]}={vectors}"] if name in PATHS else []
    if name in ("pretrained", "pretrained_lm"):
        pytest.skip("its vectors round differently in padded products; tests/runner/embeddings/pretrained_transformer")
    module = build(config(f"embedding={name}", *files)["embedding"], "embedding", {"vocabs": VOCABS})
    for layer in (item for item in module.modules() if isinstance(item, Dropout)):
        layer.p = dropout
    rows = rows_of((3, 0, 1), widen=2).with_seeds(torch.arange(3))
    ids = {key: Ragged(torch.tensor(value, dtype=torch.int32), rows, "packed") for key, value in IDS.items()}
    packed, padded = (module(item) for item in (ids, {key: value.pad() for key, value in ids.items()}))
    assert packed.values.shape == (4, module.output_size)
    assert torch.equal(padded.tokens(), packed.values)
    assert padded.values[~rows.mask].abs().sum() == 0  # <pad> is the zero vector
    upstream = torch.randn_like(packed.values)
    mine, theirs = (
        torch.autograd.grad((item.tokens() * upstream).sum(), [*module.parameters()]) for item in (packed, padded)
    )
    for (parameter, _), a, b in zip(module.named_parameters(), mine, theirs, strict=True):
        assert torch.equal(a, b)
        assert a.abs().sum() > 0
        if parameter.endswith(("own", "table.weight")) and "spelled" not in parameter:  # learned ones begin with <pad>
            assert a[0].abs().sum() == 0


def test_parts_are_concatenated() -> None:
    module = build(
        yaml.safe_load((CONFIGS / "word_pos.yaml").read_text(encoding="utf-8")), "embedding", {"vocabs": VOCABS}
    )
    ids = {key: Ragged(torch.tensor(value), rows_of((4,)), "packed") for key, value in IDS.items()}
    words, pos = module.parts["words"].weight, module.parts["pos"].weight
    assert torch.equal(module(ids).values, torch.cat([words[IDS["words"]], pos[IDS["pos"]]], dim=1))


def test_an_unknown_feature_is_named() -> None:
    node = yaml.safe_load((CONFIGS / "word.yaml").read_text(encoding="utf-8"))
    with pytest.raises(HydromelError, match=r"feature 'wrods' is unknown .* did you mean 'words'"):
        build(node | {"feature": "wrods"}, "embedding", {"vocabs": VOCABS})


def test_an_embedding_of_nothing_is_an_error() -> None:
    node = yaml.safe_load((CONFIGS / "word_pos.yaml").read_text(encoding="utf-8"))
    with pytest.raises(HydromelError, match="at least one embedding"):
        build(node | {"parts": {}}, "embedding", {"vocabs": VOCABS})
