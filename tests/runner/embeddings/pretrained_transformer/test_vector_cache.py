"""Vectors of frozen transformers that are computed once: those of the model, from memory or from a file."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.embeddings.pretrained_transformer.embedding import TransformerEmbedding
from runner.ragged.batch import Batch
from runner.ragged.ragged import Layout, Ragged
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.composed import config
from tests.helpers.contract import rows_of

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import WORDS, save_tiny

VOCAB = Vocab(WORDS, SPECIALS)
TRAIN = [[3, 4, 5, 9, 10], [7], [], [8, 3, 11, 12, 13, 14, 4], [16, 9], [7]]
VALID = [[16, 9], [5, 5, 5]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny") / "bert", "bert")


def embedding(path: Path, **changed: object) -> TransformerEmbedding:
    given = {"overlap": 2, "frozen": "[all]", "cache": "true", "dropout": 0} | changed
    options = [f"embedding.{key}={value}" for key, value in given.items()]
    node = config("embedding=pretrained", f"embedding.path={path}", *options)["embedding"]
    made = build(node, "embedding", {"vocabs": {"forms": VOCAB}, "files": None})
    assert isinstance(made, TransformerEmbedding)
    return made


def ids_of(text: list[list[int]], layout: Layout = "packed") -> Ragged:
    rows = rows_of([len(row) for row in text])
    ids = Ragged(torch.tensor([word for row in text for word in row], dtype=torch.int32), rows, "packed")
    return ids if layout == "packed" else ids.pad(VOCAB.pad)


def splits() -> dict[str, Batch]:
    given = {"train": TRAIN, "valid": VALID}
    return {
        name: Batch({"forms": ids_of(text)}, torch.zeros(len(text)), np.arange(len(text)))
        for name, text in given.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"specials": "keep", "pool": "first_last"},
        {"layers": "[0,-1]", "pool": "mean"},
        {"window": 6, "specials": "keep"},
    ],
    ids=["last layer", "keep", "layers", "windows"],
)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_cached_vectors_are_those_of_the_model(options: dict[str, object], layout: Layout, tiny: Path) -> None:
    made = embedding(tiny, **options).double()
    expected = made({"forms": ids_of(TRAIN, layout)})
    assert not expected.values.requires_grad or made.mix is not None
    made.read_splits(splits(), None)
    cached = made({"forms": ids_of(TRAIN, layout)})
    assert cached.layout == layout
    torch.testing.assert_close(cached.tokens(), expected.tokens(), rtol=1e-12, atol=1e-12)
    assert made.counters() == {}
    assert made.count_pieces(splits()["train"]) is None
    if made.mix is not None:
        cached.tokens().sum().backward()
        assert made.mix.grad is not None


def test_a_row_has_the_same_numbers_in_every_batch(tiny: Path) -> None:
    made = embedding(tiny)
    made.read_splits(splits(), None)
    together = made({"forms": ids_of(TRAIN)}).tokens().split([len(row) for row in TRAIN])
    for row, vectors in zip(TRAIN, together, strict=True):
        assert torch.equal(made({"forms": ids_of([row], "padded")}).tokens(), vectors)
    unknown = made({"forms": ids_of([[3, 3, 3, 3]])})  # is computed
    assert unknown.tokens().shape == (4, 16)
    assert copy.deepcopy(made).cached is made.cached


def test_files_are_found_again_unless_they_are_damaged(tiny: Path, tmp_path: Path) -> None:
    first = embedding(tiny)
    line = first.read_splits(splits(), tmp_path)
    assert line is not None
    assert "computed in" in line
    assert first.cached is not None
    expected, files = first({"forms": ids_of(TRAIN)}).tokens(), [*first.cached.files]
    assert len(files) == 2
    assert first.cached.n_computed == 6  # equal rows once
    second = embedding(tiny)
    line = second.read_splits(splits(), tmp_path)
    assert line is not None
    assert "vectors of frozen layers read" in line
    assert torch.equal(second({"forms": ids_of(TRAIN)}).tokens(), expected)
    whole = files[0].read_bytes()
    flipped = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
    for damage in (whole[:-9], flipped, b"", b"x" * 300):
        files[0].write_bytes(damage)
        third = embedding(tiny)
        third.read_splits(splits(), tmp_path)
        assert third.cached is not None
        assert 0 < third.cached.n_computed < 6
        assert torch.equal(third({"forms": ids_of(TRAIN)}).tokens(), expected)
    other = embedding(tiny)
    with torch.no_grad():
        next(other.backbone.parameters()).add_(1e-3)
    other.read_splits(splits(), tmp_path)
    assert other.cached is not None
    assert not {*other.cached.files} & {*files}
    assert not [path for path in (tmp_path / "pretrained_vectors").iterdir() if path.name.startswith(".")]


def test_a_full_disk_is_told_before_anything_is_computed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 9}))
    with pytest.raises(
        HydromelError, match=r"embedding.cache=true needs 0 MB in .*, with 0 MB left; use another cache_dir"
    ):
        embedding(tiny).read_splits(splits(), tmp_path)


def test_what_is_trained_is_not_cached(tiny: Path) -> None:
    with pytest.raises(HydromelError, match="the vectors of a transformer that is trained change"):
        embedding(tiny, frozen="[0-1]")
    with pytest.raises(HydromelError, match="the transformer has no dropout"):
        embedding(tiny, inner_dropout=0.2)


def test_a_frozen_transformer_keeps_no_graph_and_drops_nothing(tiny: Path) -> None:
    made = embedding(tiny, cache="false").train()
    vectors = made({"forms": ids_of(TRAIN)})
    assert not vectors.values.requires_grad
    assert torch.equal(vectors.values, made({"forms": ids_of(TRAIN)}).values)


@pytest.mark.parametrize("options", [{}, {"specials": "keep", "pool": "first_last", "layers": "[0,-1]"}])
def test_trials_of_time_and_memory_read_made_up_vectors(options: dict[str, object], tiny: Path) -> None:
    made = embedding(tiny, **options)
    rows = {"forms": ids_of([[3, 3, 3, 3], [5], []])}
    expected = made(rows)
    before = made.work["real"]
    made.assume_read()
    pretended = made(rows)
    assert made.work["real"] == before  # the transformer did not run
    assert not made.has_attention
    assert pretended.values.shape == expected.values.shape
