"""Label weights and smoothed targets, compared with explicit sums; hidden layers after the pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from runner.common.errors import HydromelError
from runner.interfaces import Head
from runner.layers.pooling import mean_pool
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab
from tasks.heads.outputs import label_weights
from tasks.targets import cross_entropy
from tests.helpers.composed import label_files, run, run_config
from tests.helpers.metrics import matrix
from tests.helpers.target_batches import EncoderOf, classify, labelled, tag, tagged

VOCAB = Vocab(("a", "b", "c"), counts=(6, 3, 1))
LABELS = {"target": VOCAB}


def head_of(**changes: Any) -> Any:
    torch.manual_seed(0)
    head: Any = classify(**changes).head(EncoderOf(4), LABELS, nn.Identity())
    return head.double()


def scored(head: Head, batch: Batch) -> torch.Tensor:
    torch.manual_seed(1)
    return head(Ragged(torch.randn(batch.rows.n_tokens, 4, dtype=torch.float64), batch.rows, "packed"), batch)


def test_balanced_weights_are_inverse_to_counts_and_one_in_the_mean_over_train() -> None:
    weights = label_weights("balanced", VOCAB)
    assert weights.tolist() == pytest.approx([10 / (3 * 6), 10 / (3 * 3), 10 / (3 * 1)])
    assert float((weights * torch.tensor(VOCAB.counts)).sum() / 10) == pytest.approx(1.0)


def test_given_weights_leave_the_other_labels_at_one() -> None:
    assert label_weights({"c": 4.0, "a": 0.5}, VOCAB).tolist() == [0.5, 1.0, 4.0]


@pytest.mark.parametrize(
    ("option", "weights"),
    [
        ("task.label_weights={true: 2.0}", {"true": 2.0}),
        ("task.label_weights={1: 3.0}", {"1": 3.0}),
        ("++task.label_weights.null=2.0", {"null": 2.0}),
        ("task.label_weights={no: 2.0, 1.5: 3.0}", {"no": 2.0, "1.5": 3.0}),
        ("task.label_weights={a b: 2.0}", {"a b": 2.0}),
    ],
)
def test_labels_that_yaml_reads_as_values_have_their_weights(option: str, weights: dict[str, float]) -> None:
    labels = Vocab(("1", "1.5", "a b", "no", "null", "true"))
    given = run_config("task=classify", option).task["label_weights"]
    assert label_weights(given, labels).tolist() == [weights.get(label, 1.0) for label in labels.tokens]


def test_labels_as_yaml_would_not_write_them() -> None:
    assert label_weights({"true": 2.0, "null": 3.0, "1": 4.0}, Vocab(("01", "None", "True", "~"))).tolist() == [
        4.0,
        1.0,
        2.0,
        3.0,
    ]
    with pytest.raises(HydromelError, match="YAML reads the labels 'True' and 'true' as one value"):
        label_weights({"true": 2.0}, Vocab(("True", "true")))


def test_null_as_a_name_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(HydromelError, match=r"quoted in a YAML file .* \+\+task\.label_weights\.null=VALUE$"):
        run_config("task=classify", "task.label_weights={null: 2.0}")


def test_a_weight_for_a_label_that_train_lacks() -> None:
    with pytest.raises(HydromelError, match=r"^label 'bb' is unknown \(task.label_weights\); did you mean 'b'\?"):
        head_of(label_weights={"bb": 2.0})


def slow_smoothed(scores: list[float], gold: int, smoothing: float) -> float:
    """Return -sum of q log p, with q = (1 - smoothing) at the target + smoothing / C at every class."""
    log_p = torch.tensor(scores, dtype=torch.float64).log_softmax(0).tolist()
    q = [smoothing / len(scores) + (1 - smoothing) * (place == gold) for place in range(len(scores))]
    return -sum(target * item for target, item in zip(q, log_p, strict=True))


def test_smoothed_targets() -> None:
    torch.manual_seed(0)
    scores, gold = 3 * torch.randn(6, 3, dtype=torch.float64), [0, 1, 2, 2, 1, 0]
    actual = cross_entropy(scores, torch.tensor(gold), smoothing=0.3)
    item = [slow_smoothed(row, item, 0.3) for row, item in zip(scores.tolist(), gold, strict=True)]
    assert actual.tolist() == pytest.approx(item, rel=1e-12)


@pytest.mark.parametrize("head", ["softmax", "hinge"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, "balanced", {"b": 3.0}])
def test_the_loss_is_the_weighted_sum_and_counts_rows(head: str, smoothing: float, weights: Any) -> None:
    if head == "hinge" and smoothing:
        with pytest.raises(
            HydromelError, match=r"^task.label_smoothing=0.2 needs task.head=softmax, but task.head=hinge"
        ):
            head_of(head=head, label_smoothing=smoothing)
        return
    gold = [2, 0, 1, 2]
    batch, plain = labelled(gold, lengths=[3, 0, 1, 2]), head_of(head=head)
    module = head_of(head=head, label_smoothing=smoothing, label_weights=weights)
    scores = scored(module, batch)
    losses = plain.losses(scores, batch).tolist()
    if smoothing:
        losses = [slow_smoothed(row, label, smoothing) for row, label in zip(scores.tolist(), gold, strict=True)]
    by_label = [1.0, 1.0, 1.0] if weights is None else label_weights(weights, VOCAB).tolist()
    expected = [by_label[label] * loss for label, loss in zip(gold, losses, strict=True)]
    assert module.losses(scores, batch).tolist() == pytest.approx(expected, rel=1e-12)
    loss = module.loss(scores, batch)
    assert (float(loss.total.detach()), loss.count) == (pytest.approx(sum(expected), rel=1e-12), 4)
    # what is predicted, and how probable it is, knows no weights
    assert module.predict(scores, batch).tolist() == plain.predict(scores, batch).tolist()
    torch.testing.assert_close(module.probabilities(scores, batch), plain.probabilities(scores, batch))


def test_hidden_layers_stand_between_pooling_and_scores() -> None:
    head = head_of(pooling="mean", hidden=[5, 2])
    batch = labelled([0, 1], lengths=[3, 2])
    tokens = Ragged(torch.randn(5, 4, dtype=torch.float64), batch.rows, "packed")
    first, second = head.hidden.linears
    assert (first.out_features, second.out_features, head.linear.in_features) == (5, 2, 2)
    expected = head.linear(F.relu(second(F.relu(first(mean_pool(tokens))))))
    for item in (tokens, tokens.pad()):
        torch.testing.assert_close(head(item, batch), expected)


def test_given_scores_have_no_hidden_layers() -> None:
    with pytest.raises(HydromelError, match=r"^task.hidden=\[5\]: with task.scores=given or task.head=count"):
        classify(hidden=[5], scores="given")


def test_weights_are_no_part_of_a_checkpoint() -> None:
    assert head_of(label_weights="balanced").state_dict().keys() == head_of().state_dict().keys()


TAGS = pa.table({"tags": pa.array([["B-A", "I-A", "O"], [], ["B-A", "O", "O"]], pa.list_(pa.string()))})


@pytest.mark.parametrize(
    ("scheme", "learned", "counts"),
    [
        (None, None, {"B-A": 2, "I-A": 1, "O": 3}),
        ("IOB2", None, {"O": 3, "B-A": 2, "I-A": 1}),
        ("IOB2", "IOBES", {"O": 3, "B-A": 1, "E-A": 1, "S-A": 1, "I-A": 0}),
    ],
)
def test_balanced_weights_of_tags_count_those_that_are_learned(
    scheme: Any, learned: Any, counts: dict[str, int]
) -> None:
    vocab = tag(span_scheme=scheme, train_scheme=learned).target_vocab([TAGS], {})
    assert dict(zip(vocab.tokens, vocab.counts, strict=True)) == counts
    kinds = sum(count > 0 for count in counts.values())
    expected = [6 / (kinds * counts[token]) if counts[token] else 0.0 for token in vocab.tokens]
    assert label_weights("balanced", vocab).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_the_loss_of_a_tagger_is_weighted_by_token(layout: str) -> None:
    batch = tagged([[0, 2, 2], [], [1]])
    weights = {"a": 2.0, "c": 0.5}
    torch.manual_seed(0)
    head: Any = tag(label_smoothing=0.1, label_weights=weights).head(EncoderOf(4), LABELS, nn.Identity())
    tokens = Ragged(torch.randn(4, 4, dtype=torch.float64), batch.rows, "packed")
    scores = head.double()(tokens if layout == "packed" else tokens.pad(), batch)
    smoothed = [slow_smoothed(row, gold, 0.1) for row, gold in zip(scores.tolist(), (0, 2, 2, 1), strict=True)]
    expected = [weight * loss for weight, loss in zip((2.0, 0.5, 0.5, 1.0), smoothed, strict=True)]
    loss, losses = head.loss(scores, batch), head.losses(scores, batch)
    assert losses.values.tolist() == pytest.approx(expected, rel=1e-12)
    assert (float(loss.total.detach()), loss.count) == (pytest.approx(sum(expected), rel=1e-12), 4)


@pytest.mark.parametrize("given", [{"label_smoothing": 0.1}, {"label_weights": "balanced"}])
@pytest.mark.parametrize("head", ["crf", "count"])
def test_only_a_softmax_weighs_and_smooths_tags(head: str, given: dict[str, Any]) -> None:
    with pytest.raises(HydromelError, match=rf"^task.head={head} supports neither label_smoothing nor label_weights"):
        tag(head=head, **given)


def uneven_files(folder: Path) -> list[str]:
    """Keep only every fifth row of label 1, so that weights matter."""
    options = label_files(folder)
    lines = (folder / "train.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for number, line in enumerate(lines) if line[0] == "0" or number % 5 == 0]
    (folder / "train.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return options


SMALL = ("encoder=conv", "encoder.filters=4", "embedding.size=8", "batching.batch_size=8", "train.epochs=2")


def test_weights_by_the_command_line_reach_the_loss(tmp_path: Path) -> None:
    data = uneven_files(tmp_path)
    figures = {}
    for number, given in enumerate(["null", "balanced", "{0:1.0,1:1.0}", "{0:0.001}"]):
        folder = tmp_path / "runs" / str(number)
        figures[given] = run(folder, *data, *SMALL, f"task.label_weights={given}")["metrics"]["test"]
    assert figures["null"] == figures["{0:1.0,1:1.0}"] != figures["balanced"]
    counts = matrix(figures["{0:0.001}"]["confusion"], "01")
    assert sum(row[1] for row in counts) > sum(row[0] for row in counts)  # label 0 weighs nothing: mostly 1 is said
