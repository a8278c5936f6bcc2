"""Character embeddings: equal to composing each word separately, once per batch, without synchronisation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from runner.common.errors import HydromelError
from runner.components.run_components import build_batching
from runner.config.instantiate import build
from runner.embeddings import char
from runner.embeddings.char import CharConv, CharRnn
from runner.layers.convolution import Convolution, convolve_parallel
from runner.layers.recurrent.recurrence import Recurrence
from runner.model import build_model, descriptions
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.characters import spell
from runner.text.vocab import PAD, SPECIALS, UNK, Vocab
from runner.training.checkpoint import load_checkpoint, save_checkpoint
from tests.helpers.composed import config, data_of, parts, run, run_config, tag_files
from tests.helpers.contract import rows_of

FORMS = ("a", "the", "ab", "abracadabra", "x", "the-end")
VOCAB = Vocab((*FORMS,), SPECIALS, alphabet="abcdehrt")
MAX = 9  # abracadabra is cut
TEXT = [[3, 4, 4, 1], [], [6], [5, 4, 8, 7, 2, 6, 3]]
META = torch.device("meta")


def embedding(name: str, vocab: Vocab = VOCAB, **changed: Any) -> CharConv | CharRnn:
    torch.manual_seed(1)
    options = [f"embedding.{key}={value}" for key, value in ({"max_characters": MAX} | changed).items()]
    node = config(f"embedding={name}", *options)["embedding"]
    module = build(node, "embedding", {"vocabs": {"chars": vocab}})
    assert isinstance(module, CharConv | CharRnn)
    return module.double()


def ids_of(text: list[list[int]]) -> Ragged:
    flat = [item for row in text for item in row]
    return Ragged(torch.tensor(flat, dtype=torch.int32), rows_of([len(row) for row in text]), "packed")


def conv_by_hand(module: CharConv, characters: Tensor) -> Tensor:
    """Compute a word's vector from characters (L, D), one position and filter width at a time."""
    parts = []
    for convolution in module.convolutions:
        weight, bias = convolution.convolution.weight, convolution.convolution.bias  # (F, D, K), (F,)
        width = weight.shape[2]
        before = (width - 1) // 2
        beyond = characters.new_zeros(width, characters.shape[1])
        line = torch.cat([beyond[:before], characters, beyond])
        outputs = [bias + torch.einsum("fdk,kd->f", weight, line[t : t + width]) for t in range(len(characters))]
        parts.append(torch.stack([module.activation(output) for output in outputs]).amax(dim=0))
    vector = torch.cat(parts)
    for layer in module.highway:
        gate = torch.sigmoid(layer.gate(vector))
        vector = gate * torch.relu(layer.transform(vector)) + (1 - gate) * vector
    return vector


def rnn_by_hand(module: CharRnn, characters: Tensor) -> Tensor:
    """Return the states of torch's module for characters (L, D), after the last and the first one."""
    forwards, backwards = module.forwards.cell, module.backwards.cell
    return torch.cat([forwards(characters[None])[0][0, -1], backwards(characters.flip(0)[None])[0][0, -1]])


MODULES = [
    embedding("char_conv", widths=[1, 2, 5], filters=4, highway=2),
    embedding("char_conv", widths=[3], filters=5, activation="relu"),
    embedding("char_rnn", hidden=4),
    embedding("char_rnn", hidden=3, cell="gru"),
]


def by_hand(module: CharConv | CharRnn, form: int) -> Tensor:
    result = spell(VOCAB, VOCAB.alphabet, MAX)
    symbols = result.symbols[result.offsets[form] : result.offsets[form + 1]]
    characters = module.spelled.table(torch.from_numpy(symbols))
    return conv_by_hand(module, characters) if isinstance(module, CharConv) else rnn_by_hand(module, characters)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_the_vector_of_a_word_does_not_depend_on_the_batch(module: CharConv | CharRnn, layout: str) -> None:
    ids = ids_of(TEXT)
    got = module({"chars": ids if layout == "packed" else ids.pad()})
    expected = torch.stack([by_hand(module, form) for row in TEXT for form in row])
    torch.testing.assert_close(got.tokens(), expected, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(expected)
    mine, theirs = (
        torch.autograd.grad((item * upstream).sum(), [*module.parameters()]) for item in (got.tokens(), expected)
    )
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("module", MODULES)
def test_each_form_of_a_batch_is_composed_once(module: CharConv | CharRnn, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def convolved(convolutions: list[Convolution], x: Ragged, before: None) -> Ragged:
        seen.append(x.rows.n_rows)
        return convolve_parallel(convolutions, x, before)

    monkeypatch.setattr(char, "convolve_parallel", convolved)
    layers = [item for item in module.modules() if isinstance(item, Recurrence)]
    hooks = [layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].rows.n_rows)) for layer in layers]
    module({"chars": ids_of(TEXT)})
    for hook in hooks:
        hook.remove()
    assert seen == [len({item for row in TEXT for item in row})] * max(1, len(layers))


@pytest.mark.parametrize("module", MODULES)
def test_batches_without_tokens_and_tokens_without_characters(module: CharConv | CharRnn) -> None:
    nothing = module({"chars": ids_of([[], []]).pad()})
    assert nothing.values.shape == (2, 1, module.output_size)
    pad = module({"chars": ids_of([[0], [0, 3]])})  # as under batching=unmasked
    assert pad.values.isfinite().all()
    torch.testing.assert_close(pad.values[2], by_hand(module, 3))


@pytest.mark.parametrize("module", MODULES)
def test_distinct_forms_are_found_without_synchronising(module: CharConv | CharRnn) -> None:
    """Tensors on the meta device have no values, so code that reads one fails."""
    ids = ids_of(TEXT)
    moved = copy.deepcopy(module).to(META)
    for layout in (ids, ids.pad()):
        got = moved({"chars": layout.to(META)})
        assert got.values.shape == (*layout.values.shape, module.output_size)
        assert got.values.device == META
    with pytest.raises(ValueError, match="are on meta only"):
        moved({"chars": ids.to(META).map(lambda values: values)})


@pytest.mark.parametrize("name", ["char_conv", "char_rnn"])
def test_tokens_of_one_form_have_different_dropout_masks(name: str) -> None:
    module = embedding(name, dropout=0.5)
    ids = ids_of([[4] * 20])
    first, *others = module({"chars": ids}).values.ne(0)
    assert any(not torch.equal(first, other) for other in others)
    module.eval()
    assert len(module({"chars": ids}).values.unique(dim=0)) == 1


def test_long_words_are_truncated() -> None:
    longer = Vocab((*VOCAB.strings, "abracadab", "abracadac"), SPECIALS, alphabet=VOCAB.alphabet)
    values = embedding("char_conv", longer)({"chars": ids_of([[6, 9, 10]])}).values
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_truncated_words_are_counted() -> None:
    module = embedding("char_conv")
    rows = Ragged(torch.tensor([6, 3, 6]), rows_of((3,)), "packed")
    splits = {
        "train": Batch({"chars": rows}, rows, np.arange(1)),
        "test": Batch({"chars": ids_of([[4]])}, rows, np.arange(1)),
    }
    (description,) = descriptions(module, splits)
    assert description.kind == "characters"
    assert description.entry["cut_forms"] == 1
    assert description.entry["cut_tokens"] == {"train": 2, "test": 0}
    assert description.entry["characters"] == len(VOCAB.alphabet)
    output = (
        "1 forms of features.chars are longer than max_characters=9 and are truncated; affected tokens: train 2, test 0"
    )
    assert description.line == output
    (description,) = descriptions(embedding("char_rnn", max_characters=40), splits)
    assert description.line is None


def test_weights_fit_any_vocabulary_of_forms(tmp_path: Path) -> None:
    module = embedding("char_rnn")
    save_checkpoint(tmp_path / "one", module, {})
    other = Vocab(("there", "the"), SPECIALS, alphabet=VOCAB.alphabet)
    torch.manual_seed(2)
    again = embedding("char_rnn", other)
    load_checkpoint(tmp_path / "one", again)
    assert torch.equal(again({"chars": ids_of([[4, 2, 1]])}).values, module({"chars": ids_of([[4, 2, 1]])}).values)


@pytest.mark.parametrize(
    ("vocabs", "message"),
    [
        ({"words": VOCAB}, r"feature 'chars' is unknown .* Allowed: words"),
        ({"chars": Vocab(("a",), (PAD, UNK))}, "features.chars has no characters; .* features=words_chars"),
    ],
)
def test_a_feature_that_is_missing_or_has_no_characters_is_named(vocabs: dict[str, Vocab], message: str) -> None:
    with pytest.raises(HydromelError, match=message):
        build(config("embedding=char_conv")["embedding"], "embedding", {"vocabs": vocabs})


def test_no_widths_is_an_error() -> None:
    with pytest.raises(HydromelError, match=r"embedding\.widths=\[\]: List should have at least 1 item"):
        embedding("char_conv", widths=[])


def test_characters_predict_tags_of_unknown_words(tmp_path: Path) -> None:
    """The unknown words of the test set have suffixes that identify their tags, so only characters can predict them."""
    rng = np.random.default_rng(1)
    for split, first in (("train", "bcdfgh"), ("valid", "jklm"), ("test", "npqr")):
        words = ["".join(rng.choice(list(first), 3)) + end for end in ("ab", "ed") for _ in range(150)]
        rng.shuffle(words)
        lines = [f"{word}\t{'V' if word.endswith('ed') else 'N'}" + "\n" * (n % 4 == 0) for n, word in enumerate(words)]
        (tmp_path / f"{split}.conll").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = [f"dataset.{split}={split}.conll" for split in ("train", "valid", "test")]
    options = ["task=tag", "dataset=twitter_pos", f"data_dir={tmp_path}", *files, "encoder.hidden=8", "train.epochs=3"]
    actual = [
        run(tmp_path / item, *options, f"embedding={item}", "optimizer.lr=0.02") for item in ("word", "word_char")
    ]
    assert [item["metrics"]["test"]["accuracy"] for item in actual] == [
        pytest.approx(50, abs=25),
        pytest.approx(100, abs=1),
    ]
    assert actual[1]["vocab"]["oov_rate"]["test"]["chars"] == 1.0
    (characters,) = actual[1]["vocab"]["characters"]
    assert characters["cut_tokens"] == {"train": 0, "valid": 0, "test": 0}


@pytest.mark.parametrize("batching", ["padmask", "packed", "unmasked"])
def test_an_update_never_synchronises(batching: str, tmp_path: Path) -> None:
    """Run from the split on, on the meta device, which has no values."""
    composed = run_config(
        *tag_files(tmp_path), "embedding=word_char", f"batching={batching}", "encoder=conv", "cache_dir=null"
    )
    strategy: Any = build_batching(composed.batching, [])
    data = data_of(composed)
    model = build_model(parts(composed), data.vocabs).to(META)
    train, valid = (data.splits[name].to(META) for name in ("train", "valid"))
    batches = [*strategy.micro_batches(train, np.array([3, 0, 7, 5])), *strategy.evaluation_batches(valid, 16)]
    assert len(batches) > 2
    for batch in batches:
        scores, _ = model(batch, None)
        model.head.loss(scores, batch).total.backward()  # type: ignore[operator]
