"""New words are composed, looked up and shared as if training had extended its vocabulary by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from runner.config.instantiate import build
from runner.data.numericalize import columns_of
from runner.ragged.ragged import Ragged
from runner.text.features import extend_vocabulary
from tests.helpers.composed import config
from tests.helpers.contract import rows_of

FILE = {"the": [1.0, 2.0], "B": [3.0, -2.0], "new": [0.5, 0.25], "bar": [7.0, 7.0], "baz": [8.0, 8.0]}
TRAIN, LATER, LAST = ["the", "The", "lacks", "B"], ["new", "THE", "the", "unheard", "Bar", "bar"], ["baz", "The"]


def table(words: list[str]) -> pa.Table:
    return pa.table({"tokens": pa.array([words], pa.list_(pa.string()))})


def made(folder: Path, extend: bool, *overrides: str) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    """Return an embedding, its features and its vocabularies, made from `TRAIN`."""
    path = folder / "vectors.txt"
    path.write_text("".join(f"{word} {a} {b}\n" for word, (a, b) in FILE.items()), encoding="utf-8")
    words = ["features.words.min_count=1", f"features.words.extend={str(extend).lower()}", "features.chars.min_count=1"]
    given = ["embedding=word_char_vectors", f"embedding.parts.vectors.path={path}", *words, *overrides]
    plain = config(*given)
    features = {name: build(node, f"features.{name}", {}) for name, node in plain["features"].items()}
    vocabs = {name: feature.vocab([table(TRAIN)]) for name, feature in features.items()}
    torch.manual_seed(1)
    return build(plain["embedding"], "embedding", {"vocabs": vocabs}), features, vocabs


def part(module: nn.Module, features: Any, vocabs: Any, words: list[str], name: str) -> torch.Tensor:
    ids = columns_of(table(words), features, vocabs)
    values: torch.Tensor = module.get_submodule(f"parts.{name}")(ids).values
    return values.detach()


@pytest.mark.parametrize(("rate", "storage"), [(0.5, "float32"), (0.0, "float32"), (0.0, "float16")])
def test_new_words_are_composed_and_looked_up(tmp_path: Path, rate: float, storage: str) -> None:
    part_of = "embedding.parts.vectors"
    module, features, vocabs = made(tmp_path, True, f"{part_of}.rate={rate}", f"{part_of}.storage={storage}")
    before = {name: part(module, features, vocabs, TRAIN, name) for name in ("words", "chars", "vectors")}
    for words in (LATER, LAST, LATER):
        grown = extend_vocabulary(module, vocabs, features, table(words))
        for name, values in before.items():  # what is known stays
            assert torch.equal(part(module, features, grown, TRAIN, name), values)
        actual = part(module, features, grown, words, "vectors")
        for word, vector in zip(words, actual.tolist(), strict=True):
            if word != "unheard":
                assert vector == FILE.get(word, FILE.get(word.lower())), word
        assert len({tuple(item) for item in part(module, features, grown, words, "chars").tolist()}) == len(words)
    unheard = LATER.index("unheard")
    unk = module.get_submodule("parts.vectors")({"words": Ragged(torch.tensor([1]), rows_of((1,)), "packed")}).values
    assert torch.equal(part(module, features, grown, LATER, "vectors")[unheard], unk[0])
    vectors = module.get_submodule("parts.vectors")
    assert len(vectors.rows) == 2 + 2  # the, B; new, bar: THE shares a row with the, Bar with bar


def test_a_new_word_shares_the_row_that_training_moved(tmp_path: Path) -> None:
    module, features, vocabs = made(tmp_path, True)
    with torch.no_grad():
        module.get_submodule("parts.vectors").rows += 1
    grown = extend_vocabulary(module, vocabs, features, table(LATER))
    assert part(module, features, grown, ["THE", "new"], "vectors").tolist() == [[2.0, 3.0], FILE["new"]]


def test_the_file_is_read_through_once(tmp_path: Path) -> None:
    """The file is opened once for any number of chunks, and still works after it has been deleted."""
    module, features, vocabs = made(tmp_path, True)
    extend_vocabulary(module, vocabs, features, table(LAST))
    (tmp_path / "vectors.txt").unlink()
    grown = extend_vocabulary(module, vocabs, features, table(LATER))
    assert part(module, features, grown, ["new"], "vectors").tolist() == [FILE["new"]]


def test_without_extend_new_words_stay_unknown(tmp_path: Path) -> None:
    module, features, vocabs = made(tmp_path, False)
    grown = extend_vocabulary(module, vocabs, features, table(LATER))
    assert grown["words"] is vocabs["words"]
    actual = part(module, features, grown, ["unheard", "new"], "vectors")
    assert torch.equal(actual[0], actual[1])
    composed = part(module, features, grown, ["unheard", "new"], "chars")
    assert not torch.equal(composed[0], composed[1])
