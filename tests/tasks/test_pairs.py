"""Models of pairs: exact in every layout, and nothing of one text reaches the other before they are combined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from runner.audit.checks.verdict import AuditReport
from runner.audit.config_audit import AuditOptions, audit_config
from runner.batching.strategy import Batching
from runner.cli.predict import main
from runner.common.errors import HydromelError
from runner.components.run_components import build_batching
from runner.config.compose import compose_strategies
from runner.config.saved import write_config
from runner.experiment.run import run_experiment
from runner.layers.pooling import PairPool, max_pool, mean_pool
from runner.model import Model, build_model
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab
from runner.training import loop
from tasks.baselines.baselines import bags, features_of, linear_svm, texts_of
from tests.helpers.composed import QUIET, data_of, pair_files, parts, run, run_config
from tests.helpers.contract import POISON, lay_out
from tests.helpers.interrupted import assert_equal, interrupted
from tests.helpers.target_batches import classify, words

SMALL = ("encoder=conv", "encoder.filters=4", "embedding.size=6", "threads=1")
VOCAB = Vocab(("a", "b", "c"), SPECIALS)


def model_of(pairs: str, folder: Path, *overrides: str) -> tuple[Model, Batch]:
    """Return a model in float64 and its training set."""
    composed = run_config("cache_dir=null", *pair_files(folder, rows=24), f"task.pairs={pairs}", *overrides)
    data = data_of(composed)
    torch.manual_seed(0)
    return build_model(parts(composed), data.vocabs).double().eval(), data.splits["train"]


def gradients_of(model: Model, batches: list[Batch]) -> tuple[Tensor, list[Tensor]]:
    """Return the scores of all rows, and the summed gradients of the loss."""
    model.zero_grad()
    scores = []
    for batch in batches:
        scores.append(model(batch, None)[0])
        model.head.loss(scores[-1], batch).total.backward()
    named = model.named_parameters()
    return torch.cat(scores), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for _, p in named]


ENCODERS = {
    "conv": ["encoder=conv", "encoder.filters=4", "embedding.size=6"],
    "chars": ["encoder=bgru", "encoder.hidden=4", "embedding=word_char", "embedding.parts.words.size=4"],
    "transformer": ["encoder=transformer", "encoder.size=8", "encoder.feedforward=8", "encoder.heads=2"],
    "bow": ["encoder=bow", "embedding=ngrams", "embedding.size=4", "embedding.buckets=50", "task.hidden=[5]"],
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("pairs", ["apart", "joined"])
def test_packed_padded_and_one_pair_at_a_time_agree(pairs: str, encoder: str, tmp_path: Path) -> None:
    model, train = model_of(pairs, tmp_path, *ENCODERS[encoder], "task.pooling=mean")
    rows = np.arange(len(train.index))
    expected = gradients_of(model, [train.select(rows[place : place + 1]) for place in rows])
    packed, wide = train.select(rows), train.select(rows, width=train.rows.max_len + 3)
    for batch in (packed, packed.step_by_step(), wide.pad()):
        scores, gradients = gradients_of(model, [batch])
        torch.testing.assert_close(scores, expected[0], rtol=1e-10, atol=1e-10)
        for actual, wanted in zip(gradients, expected[1], strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padded", [False, True])
def test_a_text_is_encoded_without_the_other(padded: bool, tmp_path: Path) -> None:
    """The encoder's vectors of a first text do not change with its second text, nor the other way round."""
    model, train = model_of("apart", tmp_path, *ENCODERS["conv"])
    long = np.flatnonzero(train.rows.host_lengths > 1)[:3]
    first, second, other = (train.features["words"].select(np.array([text])) for text in long)

    def encoded(*parts: Ragged) -> list[Tensor]:
        lists = [part.values.tolist() for part in parts]
        ids = words(lists)["words"]
        read = model.embedding({"words": ids.pad() if padded else ids})
        return list(model.encoder(read, None)[0].tokens().split([len(item) for item in lists]))

    for place, others in ((0, (first, other)), (1, (other, second))):
        expected, actual = (encoded(*pair)[place] for pair in ((first, second), others))
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("poison", POISON)
def test_both_texts_are_combined_as_in_infersent(layout: Any, poison: float) -> None:
    tokens = torch.randn(9, 3, dtype=torch.float64)
    x = lay_out(tokens, (2, 3, 0, 4), layout, poison, 2)
    u = torch.stack([tokens[:2].mean(0), torch.zeros(3)])
    v = torch.stack([tokens[2:5].mean(0), tokens[5:].mean(0)])
    expected = torch.cat([u, v, (u - v).abs(), u * v], dim=1)
    torch.testing.assert_close(PairPool(mean_pool)(x), expected)


def audited(folder: Path, batching: str) -> AuditReport:
    torch.set_num_threads(1)
    given = [*pair_files(folder), "task.pairs=apart", f"batching={batching}", *SMALL, "cache_dir=null"]
    configs, left_out = compose_strategies(given, None)
    return audit_config(configs, left_out, AuditOptions(rows=8, longest=9, arithmetics=(), heat=False))


def test_the_audit_passes(tmp_path: Path) -> None:
    report = audited(tmp_path, "packed,padmask")
    report.raise_if_failed()
    assert report.subjects() == ["packed", "padmask"]


def test_the_audit_finds_texts_that_are_combined_with_those_of_other_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halves(self: PairPool, x: Ragged) -> Tensor:
        """Combine as if all first texts came before all second ones: right for a single pair."""
        u, v = self.pool(x).chunk(2)
        return torch.cat([u, v, (u - v).abs(), u * v], dim=1)

    monkeypatch.setattr(PairPool, "forward", halves)
    report = audited(tmp_path, "packed")
    assert not report.passed
    assert any(verdict.finding and "PairPool" in verdict.finding.module for verdict in report.failures())


STRATEGIES = ["padmask", "packed", "size1", "bucketed", "same_length", "token_budget", "unmasked"]


@pytest.mark.parametrize("batching", STRATEGIES)
def test_places_and_padding_are_those_in_memory(batching: str, tmp_path: Path) -> None:
    """Shapes, padding and the budget of tokens count what the encoder reads: two rows for each pair."""
    composed = run_config("cache_dir=null", *pair_files(tmp_path), "task.pairs=apart", f"batching={batching}")
    data, strategy = data_of(composed), build_batching(composed.batching, [])
    assert isinstance(strategy, Batching)
    train = data.splits["train"]
    updates = strategy.updates(train.lengths, 1, 0)
    assert sorted(np.concatenate(updates)) == list(range(len(train.index)))
    batches = [batch for update in updates for batch in strategy.micro_batches(train, update)]
    shapes = strategy.shapes(train.lengths, updates)
    assert shapes.rows.tolist() == [len(batch.index) for batch in batches]
    assert shapes.tokens.tolist() == [train.lengths[batch.index].sum() for batch in batches]
    if strategy.pads:
        assert shapes.cells.tolist() == [batch.features["words"].values.numel() for batch in batches]
        padding = shapes.cells.sum() - train.real_tokens
        assert sum(strategy.padding(train.lengths, updates).values()) == padding > 0
    if batching == "token_budget":
        places = 2 * train.lengths.max(axis=1) if train.lengths.ndim == 2 else train.lengths
        assert shapes.cells.max() <= max(
            places.max(), np.ceil(composed.batching["batch_size"] * np.maximum(1, places).mean())
        )
    evaluation = list(strategy.evaluation_batches(train, 16))
    assert sorted(np.concatenate([batch.index for batch in evaluation])) == list(range(len(train.index)))


def test_the_baseline_is_the_same_whether_texts_are_joined(tmp_path: Path) -> None:
    predicted = []
    for pairs in ("apart", "joined"):
        data = data_of(run_config("cache_dir=null", *pair_files(tmp_path), f"task.pairs={pairs}"))
        sides = (data.splits["train"], data.splits["test"])
        predicted.append(linear_svm(*sides, data.vocabs["words"], 2, joined=pairs == "joined"))
    assert torch.equal(*predicted)
    assert len(predicted[0]) == 40


def test_the_baselines_features_are_those_of_each_text_and_of_both() -> None:
    ids = words([[3, 4], [4, 3, 4], [], [5]])["words"]
    split = Batch({"words": ids}, torch.zeros(2, dtype=torch.int64), np.arange(2))
    actual = features_of(texts_of(split, VOCAB, joined=False), split, VOCAB.known).toarray()
    each = bags(ids, VOCAB.known).toarray()
    expected = [np.concatenate([u, v, np.sqrt(u * v)]) for u, v in ((each[0], each[1]), (each[2], each[3]))]
    np.testing.assert_allclose(actual, expected)


def test_given_scores_cannot_be_those_of_two_texts() -> None:
    with pytest.raises(HydromelError, match=r"^task\.pairs=apart: with task\.scores=given .* use task\.pairs=joined$"):
        classify(pairs="apart", scores="given")


def parameters(folder: Path) -> dict[str, Tensor]:
    tensors = load_file(folder / "checkpoints" / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def test_strategies_reach_the_same_parameters(tmp_path: Path) -> None:
    exact = ("dtype=float64", "train.epochs=2", "batching.batch_size=8", "task.pairs=apart", "baselines=false")
    results = {}
    for strategy in ("size1", "padmask", "packed"):
        folder = tmp_path / "runs" / strategy
        results[strategy] = run(folder, *pair_files(tmp_path, rows=40), *SMALL, *exact, f"batching={strategy}")
    expected = parameters(tmp_path / "runs" / "padmask")
    for strategy in ("size1", "packed"):
        assert results[strategy]["updates"]["digest"] == results["padmask"]["updates"]["digest"]
        for name, tensor in parameters(tmp_path / "runs" / strategy).items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-9, msg=f"{strategy}: {name}")


@pytest.mark.parametrize("pairs", ["apart", "joined"])
def test_new_pairs_get_the_labels_that_the_run_gave(pairs: str, tmp_path: Path) -> None:
    """Words that train lacks are read by their characters, in both texts; a long text is cut as in training."""
    files = pair_files(tmp_path, rows=40)
    for name in ("valid", "test"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(path.read_text(encoding="utf-8").replace("gh", "ghh"), encoding="utf-8")
    chars = ("features=words_chars", "embedding=word_char", "embedding.parts.words.size=8", "max_length=6")
    training = ("train.epochs=2", "encoder=bgru", "encoder.hidden=4", "batching=packed", "batching.batch_size=8")
    composed = run_config(*QUIET, *files, *chars, *training, f"task.pairs={pairs}", f"runs_dir={tmp_path}")
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(composed, folder)
    result = run_experiment(composed, folder, 0.0)
    assert result["baselines"].keys() == {"svm"}
    table = (folder / "predictions" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    output = tmp_path / "out.jsonl"
    flags = ["--input", str(tmp_path / "test.jsonl"), "--output", str(output), "--field", "said", "--batch-size", "7"]
    assert main([f"run={folder}", *flags]) == 0
    said = [json.loads(line)["said"] for line in output.read_text(encoding="utf-8").splitlines()]
    assert said == [line.split("\t")[1] for line in table]


def test_a_run_that_died_continues_to_the_same_end(tmp_path: Path) -> None:
    options = [*pair_files(tmp_path, rows=40), *SMALL, "task.pairs=apart", "task.dropout=0.3"]
    training = [
        "train.epochs=2",
        "batching=token_budget",
        "batching.plan.max_tokens=60",
        "train.checkpoint_every=2",
    ]
    whole, cut = tmp_path / "runs" / "whole", tmp_path / "runs" / "cut"
    run(whole, *options, *training)
    interrupted(loop, "train_segment", cut, *options, *training, call=3)
    run(cut, *options, *training)
    assert_equal(whole, cut)


@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_pairs_in_json_are_strings_or_lists(kind: str, tmp_path: Path) -> None:
    texts = [("a b", ""), ("", "c")] if kind == "text" else [(["a", "b"], []), ([], ["c"])]
    lines = [{"p": first, "h": second, "label": 1} for first, second in texts]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    files = [f"data_dir={tmp_path}", "dataset.train=train.jsonl", "dataset.cut=hash", "dataset.valid_fraction=0.0"]
    options = ["dataset=jsonl", "dataset.text_columns={a: p, b: h}", "dataset.test_fraction=0.0"]
    table = parts(run_config(*files, *options)).corpus.read()["train"]
    assert table["tokens"].to_pylist() == [["a", "b"], []]
    assert table["tokens_b"].to_pylist() == [[], ["c"]]


def test_pooled_pairs_of_no_rows_are_no_vectors() -> None:
    empty = Ragged.from_lists([]).with_values(torch.zeros(0, 3))
    assert PairPool(max_pool)(empty).shape == (0, 12)
