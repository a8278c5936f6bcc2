"""Simple baselines, compared with plain counting and with the configs of the same models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.common.records import RESULT_KEYS, unbeaten_baselines
from runner.config.hashes import comparison_hash
from runner.interfaces import HasBaselines
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import PAD, SPECIALS, UNK, Vocab
from tasks.baselines.baselines import linear_svm, most_frequent, token_rows, uniform
from tasks.lm import Lm
from tests.helpers.composed import config, data_of, label_files, parts, run, run_config, tag_files
from tests.helpers.counted_tags import most_frequent as slow_most_frequent
from tests.helpers.counted_tags import noisy_tag_files
from tests.helpers.metrics import measured
from tests.helpers.published import DATA
from tests.helpers.target_batches import words

SMALL = ["train.epochs=1", "embedding.size=8"]
VOCAB = Vocab(("a", "b", "c", "only in test"), (PAD, UNK), extra=1)


def tagged_words(lists: list[list[int]], tags: list[int]) -> Batch:
    features = words(lists)
    rows = features["words"].rows
    return Batch(features, Ragged(torch.tensor(tags), rows, "packed"), rows.host_lengths)


def test_each_word_has_its_most_frequent_tag_and_ties_and_strangers_the_overall_one() -> None:
    train = tagged_words([[2, 2, 2], [], [3, 3, 4, 4], [4, 4]], [0, 1, 1, 2, 1, 2, 2, 0, 2])
    test = tagged_words([[2, 3, 4], [1, 5]], [0, 0, 0, 0, 0])
    # a: 0 1 1; b: 2 and 1 once each, and overall 2 is more frequent; c: 2 2 0 2; strangers: as overall
    assert most_frequent(train, test, VOCAB, 3).tolist() == [1, 2, 2, 2, 2]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=30))
@settings(deadline=None)
def test_most_frequent_tags_are_those_of_a_table_of_all_words_and_tags(pairs: list[tuple[int, int]]) -> None:
    train = tagged_words([[word for word, _ in pairs]], [tag for _, tag in pairs])
    counts = np.zeros((5, 4))
    np.add.at(counts, tuple(np.array(pairs).T), 1.0)
    expected = (counts + 1e-7 * counts.sum(axis=0)).argmax(axis=1)
    assert most_frequent(train, tagged_words([[1, 2, 3, 4]], [0] * 4), VOCAB, 4).tolist() == expected[1:].tolist()


def test_most_frequent_tags_of_many_words_and_tags_need_no_table() -> None:
    """A table of all pairs would have 80 GB."""
    ids = torch.arange(100_000)
    vocab = Vocab(tuple(map(str, range(100_002))), (PAD, UNK))
    train = tagged_words([(ids + 2).tolist()], ids.tolist())
    assert most_frequent(train, train, vocab, 100_000).tolist() == ids.tolist()


def test_an_svm_of_too_many_weights_or_steps_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train = Batch(words([[2, 3], [3, 2]]), torch.tensor([0, 1]), np.arange(2))
    reason = linear_svm(train, train, VOCAB, 10**9, joined=False)
    assert isinstance(reason, str)
    assert reason.startswith("1,000,000,000 labels x 4 words and pairs of words are 4,000,000,000 weights")
    monkeypatch.setattr("tasks.baselines.baselines.MOST_SVM_STEPS", 10)
    caplog.set_level("INFO", "runner")
    result = run(tmp_path / "run", *label_files(tmp_path), *SMALL, "encoder=bow")
    (reason,) = result["baselines"]["svm"].values()
    assert caplog.text.count(f"baseline svm is left out: {reason}") == 1
    assert "the limits are 134,217,728 and 10" in reason
    assert not unbeaten_baselines(result).keys() & {"svm"}


def test_scores_of_the_svm_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train, test = (
        Batch(
            words(rng.integers(1, 4, (size, 5)).tolist()), torch.from_numpy(rng.integers(0, 3, size)), np.arange(size)
        )
        for size in (50, 20)
    )
    whole = linear_svm(train, test, VOCAB, 3, joined=False)
    monkeypatch.setattr("tasks.baselines.baselines.MOST_SCORES", 10)
    assert torch.equal(linear_svm(train, test, VOCAB, 3, joined=False), whole)


def test_it_is_what_counting_by_hand_and_the_config_of_that_name_say(tmp_path: Path) -> None:
    files = noisy_tag_files(tmp_path)
    trained = run(tmp_path / "trained", "experiment=most_frequent_tag", *files)
    beside = run(tmp_path / "beside", *files, *SMALL)["baselines"]["most_frequent_tag"]
    answers, gold = slow_most_frequent(tmp_path)
    right = sum(a == b for a, b in zip(answers, gold, strict=True))
    assert beside["accuracy"] == pytest.approx(100 * right / len(gold))
    assert beside.pop("seconds") > 0
    assert beside == {name: trained["metrics"]["test"][name] for name in beside}
    assert beside["f1"] > 0


def test_a_linear_svm_stands_beside_every_classifier(tmp_path: Path) -> None:
    result = run(tmp_path / "run", *label_files(tmp_path), *SMALL, "encoder=bow")
    assert set(result) == set(RESULT_KEYS)
    (name,) = result["baselines"]
    assert name == "svm"
    assert result["baselines"]["svm"].keys() == {"accuracy", "macro_f1", "seconds"}
    assert result["baselines"]["svm"]["accuracy"] > result["majority"]["accuracy"] + 20
    assert run(tmp_path / "without", *label_files(tmp_path), *SMALL, "baselines=false")["baselines"] == {}


def test_the_svm_reads_words_and_pairs_of_words() -> None:
    """`a b` and `b a` differ only in their bigrams; empty rows and unknown words are allowed."""
    lists = [[2, 3], [3, 2]] * 8
    train = Batch(words(lists), torch.tensor([0, 1] * 8), np.arange(16))
    test = Batch(words([[3, 2], [2, 3], [], [5, 1]]), torch.tensor([1, 0, 0, 0]), np.arange(4))
    assert linear_svm(train, test, VOCAB, 2, joined=False).tolist()[:2] == [1, 0]


@pytest.mark.parametrize("unit", [["task.unit=line"], ["task.unit=stream", "batching=stream"]], ids=["line", "stream"])
def test_n_grams_stand_beside_every_language_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: list[str]
) -> None:
    files = [tag_file for tag_file in tag_files(tmp_path) if tag_file != "task=tag"]
    options = ["task=lm", *files, *SMALL, *unit, "train.max_updates=2"]
    result = run(tmp_path / "run", *options)
    assert list(result["baselines"]) == ["kneser_ney", "kneser_ney_cache"]
    for actual in result["baselines"].values():
        assert actual.keys() == {"nll", "perplexity", "loss", "seconds"}
        assert 1 < actual["perplexity"] < 2 * result["majority"]["perplexity"]
    monkeypatch.setattr("tasks.baselines.baselines.MOST_TOKENS", 10)
    reasons = run(tmp_path / "large", *options)["baselines"]
    assert list(reasons) == ["kneser_ney"]
    assert reasons["kneser_ney"]["left_out"].endswith(" tokens of training; at most 10 are counted")


def test_their_text_is_what_the_task_predicts() -> None:
    """A blank line is a row, and its end is a target."""
    task = Lm(**{key: value for key, value in config("task=lm")["task"].items() if key != "_target_"})
    vocab = Vocab(("a", "b"), SPECIALS)
    split = task.encode(words([[3, 4], [], [1]]), pa.table({}), {"words": vocab, "target": vocab})
    text = token_rows(split, "words")
    assert text.tokens.tolist() == [2, 3, 4, 2, 2, 2, 2, 1, 2]
    assert text.position.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert uniform(vocab).tolist() == [0, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "name", "quality", "least", "most"),
    [
        ("ud_ewt", "most_frequent_tag", "accuracy", 84.0, 86.0),
        ("twitter_pos", "most_frequent_tag", "accuracy", 66.0, 69.0),
        ("trec_dev", "svm", "accuracy", 83.0, 89.0),
    ],
)
def test_on_published_data(tmp_path: Path, dataset: str, name: str, quality: str, least: float, most: float) -> None:
    task = "tag" if name == "most_frequent_tag" else "classify"
    options: list[Any] = [f"task={task}", f"dataset={dataset}", f"data_dir={DATA}"]
    options += ["embedding.size=4", "encoder=none", "train.max_updates=1", "predictions=false"]
    actual = run(tmp_path / "run", *options)["baselines"][name]
    assert least < actual[quality] < most


@pytest.mark.data
def test_wikitext2_is_as_perplexing_to_kenlm() -> None:
    """220.1386 for the same rows by KenLM (benchmarks/kneser_ney.py), whose vocabulary has one unknown word more."""
    composed = run_config("task=lm", "dataset=wikitext2", f"data_dir={DATA}", "cache_dir=null")
    data = data_of(composed)
    task, test = parts(composed).task, data.splits["test"]
    assert isinstance(task, HasBaselines)
    models = task.baselines(data.splits["train"], test, data.vocabs)
    actual = {name: measured(task, values, test, data.vocabs) for name, values in models}
    assert actual["kneser_ney"]["perplexity"] == pytest.approx(220.1386, rel=1e-5)
    assert 180 < actual["kneser_ney_cache"]["perplexity"] < 195


def test_runs_with_and_without_baselines_are_compared() -> None:
    others, none, longer = (config("task=tag", *more) for more in ([], ["baselines=false"], ["train.epochs=3"]))
    assert comparison_hash(others) == comparison_hash(none) != comparison_hash(longer)
