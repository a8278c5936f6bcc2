"""Pretrained causal models in task=lm: the losses and gradients of transformers, packed, padded, alone and carried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from runner.common.errors import HydromelError
from runner.data.numericalize import TARGET, columns_of
from runner.embeddings.pretrained_transformer.language_model import PretrainedLanguageModel
from runner.interfaces import START
from runner.model import Model, build_model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import Rows
from runner.text.bpe import decode
from runner.text.pieces import pieces_by
from runner.text.vocab import Vocab
from tests.helpers.composed import parts, run_config

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import CAUSAL, change_config, save_tiny, save_tokenizer

LINES = ["the cat sat on a mat", "", "walking Zürich don't x1 cats 3.14 ß", "cat"]
Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("tiny")

    def get(family: str) -> Path:
        return folder / family if (folder / family).is_dir() else save_tiny(folder / family, family, with_head=True)

    return get


def built(path: Path, *changed: str, lines: list[str] = LINES) -> tuple[Model, Batch, dict[str, Vocab]]:
    """Return a model in float64, and lines as a packed batch."""
    torch.manual_seed(1)
    options = ("experiment=finetune_lm", f"embedding.path={path}", "embedding.overlap=2", "dataset.train=FILE")
    made = parts(run_config(*options, "dataset=text", *changed))
    table = pa.table({"tokens": pa.array([line.split() for line in lines], pa.list_(pa.string()))})
    vocabs = {"words": made.features["words"].vocab([table])}
    vocabs[TARGET] = made.task.target_vocab([table], vocabs)
    batch = made.task.encode(columns_of(table, made.features, vocabs), table, vocabs)
    return build_model(made, vocabs).double(), batch, vocabs


def outcome(model: Model, batches: list[Batch]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the losses of all tokens, and gradients of their sum by parameter."""
    model.zero_grad()
    losses = []
    for batch in batches:
        scores, _ = model(batch, None)
        model.head.loss(scores, batch).total.backward()
        of_batch = model.head.losses(scores, batch)
        assert isinstance(of_batch, Ragged)
        losses.append(of_batch.tokens().detach())
    return torch.cat(losses), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal(mine: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(mine[0], theirs[0], rtol=1e-9, atol=1e-9)
    assert mine[1].keys() == theirs[1].keys() != set()
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(mine[1][name], gradient, rtol=1e-9, atol=1e-9, msg=name)


def rows_of(batch: Batch) -> list[Batch]:
    return [batch.select(np.array([row])) for row in range(len(batch.index))]


def poisoned(batch: Batch) -> Batch:
    """Pad a batch, with other ids in the padding."""
    padded = batch.pad()
    ids = padded.features["words"]
    return Batch({"words": ids.with_values(ids.filled(77))}, padded.target, padded.index)


@pytest.mark.parametrize("family", CAUSAL)
def test_losses_and_gradients_are_those_of_transformers_packed_padded_and_alone(family: str, saved: Saved) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, batch, _ = built(saved(family))
    model.eval()
    reference = outcome(model, [batch])
    assert_equal(outcome(model, rows_of(batch)), reference)
    assert_equal(outcome(model, [poisoned(batch)]), reference)
    whole = AutoModelForCausalLM.from_pretrained(saved(family)).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(saved(family))
    losses = []
    for line in LINES:
        ids = [tokenizer.bos_token_id, *tokenizer(line)["input_ids"], tokenizer.eos_token_id]
        both = torch.tensor([ids])
        output = whole(input_ids=both, labels=both)
        loss = torch.nn.functional.cross_entropy(output.logits[0, :-1], both[0, 1:], reduction="sum")
        assert float(output.loss.detach()) == pytest.approx(
            float(loss.detach()) / (len(ids) - 1), rel=1e-6
        )  # in float32
        loss.backward()
        losses.append(float(loss.detach()))
    sums = [float(part.sum()) for part in reference[0].split(batch.rows.host_lengths.tolist())]
    np.testing.assert_allclose(sums, losses, rtol=1e-9)
    theirs = {name.removeprefix(f"{whole.base_model_prefix}."): p.grad for name, p in whole.named_parameters()}
    mine = {
        name.removeprefix("embedding.backbone.model.").replace("embedding.output.", "lm_head."): gradient
        for name, gradient in reference[1].items()
    }
    assert_equal((reference[0], mine), (reference[0], theirs))


@pytest.mark.parametrize("family", CAUSAL)
def test_dropout_is_that_of_the_rows_under_every_layout(family: str, saved: Saved) -> None:
    model, batch, _ = built(saved(family), "embedding.inner_dropout=0.2", "task.dropout=0.1")
    model.train()
    seeded = batch.with_seeds(torch.arange(len(batch.index)))
    reference = outcome(model, [seeded])
    assert_equal(outcome(model, rows_of(seeded)), reference)
    assert_equal(outcome(model, [seeded.pad()]), reference)
    assert not torch.allclose(reference[0], outcome(model.eval(), [batch])[0])


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_windows_with_carried_keys_and_values_give_the_same_vectors(family: str, layout: str, saved: Saved) -> None:
    model, batch, _ = built(saved(family))
    model.eval()
    with torch.no_grad():
        expected = model.encode(batch.features, None)[0].tokens().split(batch.rows.host_lengths.tolist())
        ids = batch.features["words"].tokens().split(batch.rows.host_lengths.tolist())
        for sizes in ((1,) * 40, (3, 0, 2, 30), (2, 5, 1, 1, 30)):
            state, first, parts = START, 0, [[] for _ in ids]  # type: ignore[var-annotated]
            for size in sizes:
                window = [row[first : first + size] for row in ids]
                rows = Rows(np.array([len(row) for row in window]), torch.device("cpu"))
                feature = Ragged(torch.cat(window), rows, "packed")
                got, state = model.encode({"words": feature.pad() if layout == "padded" else feature}, state)
                for row, vectors in zip(parts, got.tokens().split(rows.host_lengths.tolist()), strict=True):
                    row.append(vectors)
                first += size
            for mine, whole in zip(parts, expected, strict=True):
                torch.testing.assert_close(torch.cat(mine), whole, rtol=1e-9, atol=1e-9)
    assert isinstance(model.embedding, PretrainedLanguageModel)
    with pytest.raises(HydromelError, match="is longer than the 40 that this"):
        model.embedding.carry({"words": Ragged(torch.ones(41), rows_with(41), "packed")}, START)


def rows_with(length: int) -> Rows:
    return Rows(np.array([length]), torch.device("cpu"))


def test_a_long_row_is_predicted_in_windows_with_enough_before_each_piece(saved: Saved) -> None:
    model, batch, _ = built(saved("llama"), "embedding.window=9", "embedding.overlap=4")
    whole, _, _ = built(saved("llama"))
    for layout in (batch, batch.pad()):
        got = model.eval().encode(layout.features, None)[0].tokens().split(batch.rows.host_lengths.tolist())
        for mine, row in zip(got, rows_of(batch), strict=True):
            ids, length = row.features["words"].values, len(row.features["words"].values)
            starts = [0]
            while starts[-1] + 9 < length:
                starts.append(starts[-1] + 5)  # wherever the row ends, so that no vector depends on what comes later
            expected, done = [], 0
            for start in starts:
                piece = Ragged(ids[start : start + 9], rows_with(min(9, length - start)), "packed")
                expected.append(whole.eval().encode({"words": piece}, None)[0].tokens()[done - start :])
                done = min(start + 9, length)
            torch.testing.assert_close(mine, torch.cat(expected), rtol=1e-9, atol=1e-9)
    assert isinstance(model.embedding, PretrainedLanguageModel)
    assert model.embedding.counters()["pieces"]["windows"] > len(LINES) * 2
    line = model.embedding.describe({"train": batch}).line
    assert line is not None
    assert "rows longer than 9 pieces are read in overlapping windows: train 1" in line


def test_padding_may_be_wider_than_the_positions(saved: Saved) -> None:
    model, batch, _ = built(saved("gpt2"), lines=["the cat sat", "a mat"])
    widened = Rows(batch.rows.host_lengths, batch.rows.device, 200)
    ids = batch.features["words"]
    wide = Ragged(ids.values, widened, "packed").pad()
    got = model.eval().encode({"words": wide}, None)[0].tokens()
    torch.testing.assert_close(got, model.encode(batch.features, None)[0].tokens(), rtol=1e-9, atol=1e-9)


def test_adapters_frozen_parts_and_rates(saved: Saved) -> None:
    lora = "embedding.lora={rank: 2, alpha: 4, dropout: 0.0, targets: [q_proj, v_proj]}"
    model, batch, _ = built(saved("llama"), lora)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 2 * 2 * 2
    assert all("lora_" in name for name in trained)
    plain, _, _ = built(saved("llama"))
    torch.testing.assert_close(outcome(model.eval(), [batch])[0], outcome(plain.eval(), [batch])[0])
    model, _, _ = built(saved("llama"), "embedding.frozen=[embeddings,0]", "embedding.layer_decay=0.5")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"embedding.output.weight", "embedding.backbone.model.norm.weight"} < trained
    assert all("layers.1." in name or name.endswith(("output.weight", "norm.weight")) for name in trained)
    assert isinstance(model.embedding, PretrainedLanguageModel)
    factors = model.embedding.learning_rate_factors
    assert factors["output.weight"] == 1.0
    assert factors["backbone.model.embed_tokens.weight"] == 0.25
    model, _, _ = built(saved("llama"), "embedding.frozen=[all]")
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["bytes_gpt", "bytes_no_space", "bytes_fallback"])
def test_lines_are_split_as_by_transformers_and_spelt_again(kind: str, saved: Saved, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved("gpt2"), folder)
    tokenizer = save_tokenizer(folder, kind)
    change_config(folder, vocab_size=300)
    made = parts(run_config("experiment=finetune_lm", f"embedding.path={folder}", "dataset=text", "dataset.train=FILE"))
    lines = [*LINES, "日本 x<0x41>", "a a"]
    table = pa.table({"tokens": pa.array([line.split() for line in lines], pa.list_(pa.string()))})
    vocab = made.features["words"].vocab([table])
    ids = columns_of(table, made.features, {"words": vocab})["words"]
    assert Vocab.from_plain(json.loads(json.dumps(vocab.to_plain()))) == vocab
    pieces = pieces_by(vocab)
    assert pieces is not None
    rows = [vocab.decode(row.numpy()) for row in ids.values.split(ids.rows.host_lengths.tolist())]
    for line, row in zip(lines, rows, strict=True):
        expected = tokenizer(line, add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_tokens_to_ids(row) == expected
        assert "".join(decode(map(pieces.bytes_of, row))).removeprefix(" ") == line
    # words and characters of the text, a line end being one of each
    batch = made.task.encode({"words": ids}, table, {"words": vocab, TARGET: vocab})
    metric = made.task.metric
    metric.start({TARGET: vocab})
    assert isinstance(batch.target, Ragged)
    metric.update(torch.ones(batch.target.rows.n_tokens), batch)
    figures = metric.compute()
    metric.start({TARGET: vocab})
    metric.update(torch.ones(batch.target.rows.n_tokens), batch.select(np.arange(len(lines))).unmasked())
    assert metric.compute() == figures  # whatever the padding is read as
    words, characters = sum(len(line.split()) + 1 for line in lines), sum(len(line) + 1 for line in lines)
    assert figures["word_perplexity"] == pytest.approx(np.exp(batch.target.rows.n_tokens / words))
    assert figures["bits_per_character"] == pytest.approx(batch.target.rows.n_tokens / characters / np.log(2))


@pytest.mark.parametrize(
    ("family", "with_head", "options", "message"),
    [
        ("roberta", True, [], "roberta reads later pieces too"),
        ("bert", True, [], "pieces do not spell the text"),
        ("llama", False, [], r"no weights of the output layer \(lm_head.weight\)"),
        ("gpt2", True, ["task.tie_weights=false"], "use task.tie_weights=true"),
        ("gpt2", True, ["encoder=conv"], "use encoder=none"),
        ("gpt2", True, ["features=words"], "use features=pieces"),
        ("gpt2", True, ["task.unit=stream", "batching=stream"], "use task.unit=line"),
        ("gpt2", True, ["embedding.window=41"], "has positions for 40 pieces"),
    ],
)
def test_what_cannot_be_a_language_model_is_refused(
    family: str, with_head: bool, options: list[str], message: str, tmp_path: Path
) -> None:
    path = save_tiny(tmp_path / family, family, with_head)
    with pytest.raises(HydromelError, match=message):
        built(path, *options)


def test_another_tokenizer_is_refused(saved: Saved, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(saved("gpt2"), folder)
    save_tokenizer(folder, "bytes_fallback")
    with pytest.raises(HydromelError, match=r"its tokenizer has other pieces than features\.words"):
        built(saved("gpt2"), f"features.words.path={folder}")
    with pytest.raises(HydromelError, match=r"the tokenizer has a piece number 3.., but the model has vectors for 2.."):
        built(folder)


def test_a_model_that_changes_its_scores_is_refused(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2LMHeadModel

    plain = GPT2LMHeadModel.forward

    def scaled(self: Any, **inputs: Any) -> Any:
        output = plain(self, **inputs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(GPT2LMHeadModel, "forward", scaled)
    with pytest.raises(HydromelError, match="gpt2 changes the scores of its output layer"):
        built(saved("gpt2"))


@pytest.mark.parametrize("family", ["gpt2", "llama"])  # with tied and with separate output layers
def test_a_language_model_is_written_with_merged_adapters(family: str, saved: Saved, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    targets = "[c_attn]" if family == "gpt2" else "[q_proj]"
    model, batch, _ = built(saved(family), f"embedding.lora={{rank: 2, alpha: 4, dropout: 0.0, targets: {targets}}}")
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        assert model.embedding.write_folder(tmp_path) < 1e-6  # type: ignore[operator]
        written, again, _ = built(tmp_path)
        torch.testing.assert_close(written.eval()(again, None)[0], model(batch, None)[0], rtol=1e-5, atol=1e-5)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.model_type == family
