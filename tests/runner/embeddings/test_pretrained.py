"""Pretrained vectors as an embedding: the vector of each word, its learning rate, and its description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from runner.common.errors import HydromelError
from runner.common.run_schema import RESULT
from runner.components.run_components import optimizer_factory
from runner.config.instantiate import build
from runner.embeddings.pretrained import PretrainedEmbedding
from runner.embeddings.word import WordEmbedding
from runner.model import descriptions
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, SPECIALS, UNK, Vocab
from runner.training.checkpoint import load_checkpoint, save_checkpoint
from runner.training.setup import build_optimizer
from tests.helpers.composed import run, run_config, tag_files
from tests.helpers.contract import rows_of

CONFIG = Path(__file__).parents[3] / "configs/embedding/vectors.yaml"
WORDS = Vocab(("the", "The", "lacks", "B"), SPECIALS)
EXTENDED = Vocab((*WORDS.strings, "new", "unheard"), SPECIALS, extra=2)
FILE = {"the": [1.0, 2.0], "B": [3.0, -2.0], "new": [0.5, 0.25], "other": [9.0, 9.0]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in FILE.items()), encoding="utf-8")
    return path


def vectors(file: Path, vocab: Vocab = WORDS, **changed: Any) -> PretrainedEmbedding:
    node = yaml.safe_load(CONFIG.read_text(encoding="utf-8")) | {"path": str(file), "data_dir": None} | changed
    module = build(node, "embedding", {"vocabs": {"words": vocab}})
    assert isinstance(module, PretrainedEmbedding)
    return module


def looked_up(module: torch.nn.Module, *ids: int) -> torch.Tensor:
    values: torch.Tensor = module({"words": Ragged(torch.tensor(ids), rows_of((len(ids),)), "packed")}).values
    return values


def test_a_word_has_the_files_vector_or_a_learned_one(file: Path) -> None:
    module = vectors(file)
    got = looked_up(module, *range(7))
    assert got[0].tolist() == [0, 0]
    assert [got[place].tolist() for place in (3, 4, 6)] == [FILE["the"], FILE["the"], FILE["B"]]
    assert (len(module.rows), len(module.own)) == (2, 4)  # <pad>, <unk>, <eos>, lacks
    assert len({tuple(row) for row in got[[1, 2, 5]].tolist()}) == 3
    exact = vectors(file, lowercase_if_missing=False)
    assert len(exact.own) == 5


def test_own_vectors_are_drawn_within_the_files_spread(tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    numbers = torch.randn(500, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.1, 5.0]) + 3
    path.write_text("".join(f"w{i} {a:.6f} {b:.6f}\n" for i, (a, b) in enumerate(numbers.tolist())), encoding="utf-8")
    words = [f"w{i}" for i in range(500)] + [f"x{i}" for i in range(4000)]
    torch.manual_seed(1)
    module = vectors(path, Vocab((*words,), (PAD, UNK)))
    assert len(module.own) == 4002
    drawn = module.own[1:].detach()
    torch.testing.assert_close(drawn.mean(dim=0), numbers.mean(dim=0), atol=0.3, rtol=0)
    torch.testing.assert_close(drawn.std(dim=0), numbers.std(dim=0), atol=0, rtol=0.05)


def test_unknown_words_are_looked_up_or_become_unk(file: Path) -> None:
    got = looked_up(vectors(file, EXTENDED), 1, 7, 8)
    assert got[1].tolist() == FILE["new"]
    assert torch.equal(got[2], got[0])
    learned = looked_up(
        WordEmbedding(
            vocabs={"words": EXTENDED},
            feature="words",
            size=3,
            init_range=None,
            unk_rate=0.0,
            type_dropout=0.0,
            dropout=0.0,
        ),
        1,
        7,
        8,
        6,
    )
    assert torch.equal(learned[:3], learned[[0, 0, 0]])
    assert not torch.equal(learned[3], learned[0])


def after_updates(module: PretrainedEmbedding, updates: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how far SGD moves the file's rows and the learned rows, with a gradient of one everywhere."""
    before = module.rows.detach().clone(), module.own.detach().clone()
    sgd = optimizer_factory(run_config("optimizer=sgd", "optimizer.lr=0.5", "optimizer.momentum=0.0"))
    optimizer = build_optimizer(sgd, module)
    for _ in range(updates):
        looked_up(module, *range(7)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return before[0] - module.rows.detach(), before[1] - module.own.detach()


@pytest.mark.parametrize("rate", [0.0, 0.125, 1.0])
def test_the_files_vectors_have_their_own_learning_rate(file: Path, rate: float) -> None:
    rows, own = after_updates(vectors(file, rate=rate))
    # 'the' and 'The' share a row, so that it gets two gradients an update
    torch.testing.assert_close(rows, 1.5 * rate * torch.tensor([[2.0, 2.0], [1.0, 1.0]]))
    torch.testing.assert_close(own, 1.5 * torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))


def test_groups_are_one_for_each_rate(file: Path) -> None:
    adam = optimizer_factory(run_config("optimizer=adam", "optimizer.lr=0.01"))
    both = torch.nn.ModuleList([torch.nn.Linear(2, 2), vectors(file, rate=0.5), vectors(file, rate=0.5)])
    groups = build_optimizer(adam, both).param_groups
    assert [(group["initial_lr"], len(group["params"])) for group in groups] == [(0.01, 4), (0.005, 2)]
    assert len(build_optimizer(adam, vectors(file, rate=0.0)).param_groups) == 1
    assert sum(parameter.numel() for parameter in vectors(file, rate=0.0).parameters()) == 4 * 2  # frozen: not trained


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float16_holds_the_same_vectors_rounded(file: Path, dtype: torch.dtype) -> None:
    file.write_text("the 0.1 2.0\nB 3.0 -2.0\n", encoding="utf-8")
    module = vectors(file, rate=0.0, storage="float16").to(dtype=dtype)
    assert module.rows.element_size() == 2
    got = looked_up(module, 3, 6)
    assert got.dtype == dtype
    assert got.tolist() == torch.tensor([[0.1, 2.0], [3.0, -2.0]]).half().tolist()
    file.write_text("the 0.1 1e6\n", encoding="utf-8")
    with pytest.raises(HydromelError, match=r"some numbers are too large for float16; use embedding\.storage=float32"):
        vectors(file, rate=0.0, storage="float16")
    with pytest.raises(HydromelError, match="storage=float16 needs frozen vectors"):
        vectors(file, rate=0.5, storage="float16")


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_checkpoint_holds_the_vectors_themselves(file: Path, tmp_path: Path, storage: str) -> None:
    module = vectors(file, rate=0.0, storage=storage)
    before = looked_up(module, *range(7)).detach()
    save_checkpoint(tmp_path / "c.safetensors", module, {})
    file.write_text(file.read_text().replace("3.0 -2.0", "7.0 7.0"), encoding="utf-8")
    other = vectors(file, rate=0.0, storage=storage)
    assert not torch.equal(looked_up(other, *range(7)), before)
    load_checkpoint(tmp_path / "c.safetensors", other)
    assert torch.equal(looked_up(other, *range(7)), before)


def split_of(*ids: int) -> Batch:
    words = Ragged(torch.tensor(ids, dtype=torch.int32), rows_of((len(ids),)), "packed")
    return Batch({"words": words}, words, np.arange(1))


def test_coverage_is_counted_by_hand(file: Path) -> None:
    module = vectors(file, EXTENDED)
    splits = {"train": split_of(3, 3, 3, 5), "valid": split_of(4, 7, 8, 1), "test": split_of()}
    (description,) = descriptions(torch.nn.Sequential(module), splits)
    entry = description.entry
    assert description.kind == "vectors"
    assert entry["coverage"] == {"train": 0.75, "valid": 0.5, "test": 0.0}
    figures = {key: entry[key] for key in ("words", "size", "rows", "asked_words", "covered_words")}
    assert figures == {"words": 4, "size": 2, "rows": 3, "asked_words": 6, "covered_words": 4}
    assert description.line == (
        f"{file} (GloVe text, 4 vectors of size 2): 4 of 6 words found; "
        "covered tokens: train 75.0 %, valid 50.0 %, test 0.0 %"
    )


def test_invalid_options_raise_one_line_errors(file: Path) -> None:
    with pytest.raises(HydromelError, match=r"none of the 1 words of features\.words is in this file \(GloVe text\)"):
        vectors(file, Vocab(("q",), (PAD, UNK)))
    with pytest.raises(HydromelError, match=r"features\.words has no words to look up in .*; lower its min_count"):
        vectors(file, Vocab((), (PAD, UNK)))
    with pytest.raises(HydromelError, match=r"^v\.txt: cannot be read .*; check embedding\.path, and the folder"):
        vectors(file, path="v.txt")
    with pytest.raises(HydromelError, match=r"feature 'wrods' is unknown .* did you mean 'words'"):
        vectors(file, feature="wrods")
    assert vectors(file, path="vectors.txt", data_dir=str(file.parent)).path == file


def test_a_relative_path_without_data_dir_is_in_the_working_directory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert vectors(file, path="vectors.txt").n_own == vectors(file).n_own


def test_a_run_with_vectors(tmp_path: Path) -> None:
    """Words of valid and test are looked up, several vector files are combined, and the result lists the coverage."""
    files = tag_files(tmp_path)
    (tmp_path / "a.txt").write_text("ann 1.0 0.0\nbob 1.0 0.5\nrome 0.0 1.0\noslo 0.5 1.0\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Cid 1.0 0.0 2.0\nthe 0.0 1.0 0.0\n", encoding="utf-8")
    options = ["embedding=word_vectors", "embedding.parts.learned.size=4", "encoder=rnn", "encoder.hidden=4"]
    options += ["embedding.parts.pretrained.path=a.txt", "+embedding@embedding.parts.more=vectors"]
    options += ["embedding.parts.more.path=b.txt", "train.epochs=2", "features.words.extend=true"]
    run(tmp_path / "run", *files, *options)
    described = json.loads((tmp_path / "run" / RESULT).read_text(encoding="utf-8"))["vocab"]["vectors"]
    assert [Path(item["path"]).name for item in described] == ["a.txt", "b.txt"]
    assert [item["covered_words"] for item in described] == [4, 2]
    assert all(0 < item["coverage"][split] < 1 for item in described for split in ("train", "valid", "test"))
