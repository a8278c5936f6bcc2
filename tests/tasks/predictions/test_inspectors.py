"""Files of predictions: all columns of the data, in its order, and figures that another program reproduces."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.instantiate import build
from runner.inference.predictions import predict
from runner.interfaces import Predictions
from runner.text.vocab import Vocab
from runner.training.loop import fit
from runner.training.state import Training
from tasks.predictions.inspectors import SHOWN, LabelInspector, Listing, TagInspector, token_texts
from tasks.spans.errors import Comparison
from tasks.spans.schemes import OwnTags
from tasks.spans.table import all_tags
from tests.helpers.composed import config, label_files, run, tag_files
from tests.helpers.conlleval import conlleval
from tests.helpers.metrics import by_name, span_metric
from tests.helpers.target_batches import EncoderOf, ids, labelled, tag, tagged

SMALL = ("encoder=rnn", "encoder.hidden=8", "train.epochs=3", "batching.batch_size=8", "optimizer.lr=0.01")
TYPES = ("LOC", "PER", "a-b")
VOCABS = {"target": Vocab(("a", "b", "c", "d"))}


def sentences(path: Path) -> list[list[str]]:
    """Return the lines of each sentence of a column file."""
    return [part.split("\n") for part in path.read_text(encoding="utf-8").strip("\n").split("\n\n")]


def same_as_conlleval(path: Path, delimiter: str, figures: dict[str, Any]) -> None:
    counted = conlleval(path.read_text(encoding="utf-8"), delimiter)
    for name in ("accuracy", "precision", "recall", "f1"):
        assert figures[name] == pytest.approx(counted[name]), name
    per_type = by_name(figures["per_type"])
    for kind, item in counted["per_type"].items():
        assert per_type[kind] == pytest.approx(item), kind


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2"])
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_figures_are_those_of_conlleval(scheme: str, data: st.DataObject) -> None:
    tags = all_tags(TYPES, scheme)
    pair = st.tuples(*[st.integers(0, len(tags) - 1)] * 2)
    rows = data.draw(st.lists(st.lists(pair, max_size=7), min_size=1, max_size=6))
    metric = span_metric(tags, scheme)
    metric.update(ids([p for row in rows for _, p in row]), tagged([[g for g, _ in row] for row in rows]))
    text = "\n\n".join("\n".join(f"w {tags[g]} {tags[p]}" for g, p in row) for row in rows)
    figures, counted = metric.compute(), conlleval(text, " ")
    for name in ("accuracy", "precision", "recall", "f1"):
        assert figures[name] == pytest.approx(counted[name])
    assert {
        kind: item for kind, item in by_name(figures["per_type"]).items() if item["support"] or item["precision"]
    } == {
        kind: pytest.approx(item) for kind, item in counted["per_type"].items() if item["support"] or item["precision"]
    }


@pytest.mark.parametrize(
    "options",
    [["task.train_scheme=null"], ["task.train_scheme=IOBES"], ["task.train_scheme=IOBES", "task.head=crf"]],
    ids=["own", "iobes", "crf"],
)
def test_a_runs_file_is_the_datas_with_two_columns_more(tmp_path: Path, options: list[str]) -> None:
    options = [*tag_files(tmp_path), *SMALL, *options, "train.max_updates=6"]
    figures = run(tmp_path / "run", *options)["metrics"]["test"]
    path = tmp_path / "run" / run_schema.PREDICTIONS / "test.conll"
    same_as_conlleval(path, "\t", figures)
    assert 0 < figures["f1"] < 100
    own = sentences(tmp_path / "test.conll")
    output = sentences(path)
    assert [[line.split("\t")[:2] for line in row] for row in output] == [
        [line.split("\t") for line in row] for row in own
    ]
    assert all(line.split("\t")[1] == line.split("\t")[2] for row in output for line in row)
    assert {line.split("\t")[3] for row in output for line in row} <= {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}
    counts = figures["errors"]["counts"]
    text = (path.parent / "errors.txt").read_text(encoding="utf-8")
    assert text.startswith(f"{sum(counts.values()) - counts['spurious']} gold spans, ")
    assert f"{counts['right']} right" in text.split("\n", maxsplit=1)[0]
    assert f"== missed: {counts['missed']}" in text


COLUMNS = """-DOCSTART- -X- O X

# a comment
# another
EU   NNP I-ORG  y
rejects VBZ O  y

Peter NNP I-PER  n
Brown NNP I-PER  n
said VBD O n

"""


def column_options(folder: Path) -> list[str]:
    for split in ("train", "valid", "test"):
        (folder / split).write_text(COLUMNS, encoding="utf-8")
    return [
        "task=tag",
        "dataset=columns_file",
        f"data_dir={folder}",
        *(f"dataset.{split}={split}" for split in ("train", "valid", "test")),
        "dataset.separator=space",
        "dataset.columns={tokens: 0, tags: 2}",
        "dataset.span_scheme=IOB1",
        "dataset.skip_docstart=true",
        "dataset.comment_prefix='#'",
    ]


def test_lines_stand_as_in_the_file_whichever_column_holds_the_tags(tmp_path: Path) -> None:
    figures = run(tmp_path / "run", *column_options(tmp_path), *SMALL)["metrics"]["test"]
    path = tmp_path / "run" / run_schema.PREDICTIONS / "test.conll"
    assert [[line.rsplit(" ", 1)[0] for line in row] for row in sentences(path)] == [
        ["EU   NNP I-ORG  y I-ORG", "rejects VBZ O  y O"],
        ["Peter NNP I-PER  n I-PER", "Brown NNP I-PER  n I-PER", "said VBD O n O"],
    ]
    same_as_conlleval(path, " ", figures)


def test_tokens_that_max_length_cut_are_marked_and_count_as_missed(tmp_path: Path) -> None:
    options = (*tag_files(tmp_path), *SMALL, "max_length=2")
    figures = run(tmp_path / "run", *options)["metrics"]["test"]
    path = tmp_path / "run" / run_schema.PREDICTIONS / "test.conll"
    own = sentences(tmp_path / "test.conll")
    written = [[line.split("\t") for line in row] for row in sentences(path)]
    assert [[line[0] for line in row] for row in written] == [[line.split("\t")[0] for line in row] for row in own]
    assert [[line[-1] == "." for line in row] for row in written] == [[n >= 2 for n in range(len(row))] for row in own]
    assert sum(row["support"] for row in figures["per_type"]) == sum("\tB-" in x for r in own for x in r)
    same_as_conlleval(path, "\t", figures)


CONLLU = """# sent_id = 1
1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tdo\tdo\tAUX\tVB\t_\t0\troot\t_\t_
2\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_
2.1\tx\t_\t_\t_\t_\t_\t_\t_\t_

1\tgo\tgo\tVERB\tVB\t_\t0\troot\t_\t_

"""


def test_a_treebank_keeps_its_ten_columns(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        (tmp_path / split).write_text(CONLLU, encoding="utf-8")
    files = [f"dataset.{split}={split}" for split in ("train", "valid", "test")]
    result = run(tmp_path / "run", "task=tag", "dataset=conllu", f"data_dir={tmp_path}", *files, *SMALL)
    output = sentences(tmp_path / "run" / run_schema.PREDICTIONS / "test.conll")
    words = [[line for line in part.split("\n") if line[:2] in ("1\t", "2\t")] for part in CONLLU.split("\n\n")[:2]]
    assert [[line.split("\t")[:10] for line in row] for row in output] == [
        [w.split("\t") for w in row] for row in words
    ]
    assert [[line.split("\t")[10] for line in row] for row in output] == [["AUX", "PART"], ["VERB"]]
    assert not (tmp_path / "run" / run_schema.PREDICTIONS / "errors.txt").exists()
    assert "errors" not in result["metrics"]["test"]
    assert sum(item["count"] for item in result["metrics"]["test"]["calibration"]["bins"]) == 3


def test_classification_is_a_table_in_the_files_order(tmp_path: Path) -> None:
    result = run(tmp_path / "run", *label_files(tmp_path), *SMALL)["metrics"]["test"]
    lines = (tmp_path / "run" / run_schema.PREDICTIONS / "test.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "gold\tpredicted\tscore\tplace"
    rows = [line.split("\t") for line in lines[1:]]
    own = (tmp_path / "test.txt").read_text(encoding="utf-8").splitlines()
    assert [row[0] for row in rows] == [line[0] for line in own]
    assert [row[3] for row in rows] == [f"{tmp_path / 'test.txt'}:{number + 1}" for number in range(len(own))]
    right = sum(gold == predicted for gold, predicted, _, _ in rows)
    assert result["accuracy"] == pytest.approx(100 * right / len(rows))
    assert all(0.5 <= float(row[2]) <= 1 for row in rows)
    assert sum(item["count"] for item in result["calibration"]["bins"]) == len(rows)


def test_without_a_test_split_valid_is_looked_into(tmp_path: Path) -> None:
    options = [tag_file for tag_file in tag_files(tmp_path) if "dataset.test" not in tag_file]
    result = run(tmp_path / "run", *options, *SMALL, "dataset.test=null", "dataset.test_fraction=0.0")
    assert [path.name for path in sorted((tmp_path / "run" / run_schema.PREDICTIONS).iterdir())] == [
        "errors.txt",
        "valid.conll",
    ]
    assert "test" not in result["metrics"]
    same_as_conlleval(tmp_path / "run" / run_schema.PREDICTIONS / "valid.conll", "\t", result["metrics"]["valid"])
    assert result["metrics"]["valid"]["errors"]["counts"]["right"] > 0


def test_none_are_written_if_none_are_wanted_nor_by_a_language_model(tmp_path: Path) -> None:
    files = tag_files(tmp_path)
    none = run(tmp_path / "none", *files, *SMALL, "predictions=false")
    (tmp_path / "text").write_text("a b\nb a\n" * 8, encoding="utf-8")
    text = ["dataset=text", f"data_dir={tmp_path}", "dataset.train=text", "dataset.cut=contiguous"]
    run(tmp_path / "lm", "task=lm", *text, *SMALL)
    for folder in ("none", "lm"):
        assert not (tmp_path / folder / run_schema.PREDICTIONS).exists()
    assert {"errors", "calibration"} & set(none["metrics"]["test"]) == set()


def test_a_data_set_that_changed_meanwhile_costs_the_files_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = tag_files(tmp_path)

    def fit_while_the_files_change(training: Training) -> None:
        fit(training)
        tag_files(tmp_path, seed=2)

    monkeypatch.setattr("runner.experiment.run.fit", fit_while_the_files_change)
    run(tmp_path / "run", *files, *SMALL)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "the predictions of test were not written: dataset=wnut17 has changed since the start of the run"
    ]
    assert not (tmp_path / "run" / run_schema.PREDICTIONS).exists()
    result = json.loads((tmp_path / "run" / run_schema.RESULT).read_text(encoding="utf-8"))
    assert result["metrics"]["test"]["errors"]["counts"]["right"] > 0


def test_a_sentence_that_is_gone_is_named(tmp_path: Path) -> None:
    corpus = build(config(*column_options(tmp_path))["dataset"], "dataset", {})
    table = corpus.read()["test"]
    (tmp_path / "test").write_text(COLUMNS[COLUMNS.index("# another") :], encoding="utf-8")
    with pytest.raises(
        HydromelError,
        match=rf"^{tmp_path / 'test'}:8: no sentence starts here any more; the file has changed since it was read$",
    ):
        token_texts(corpus, table)


def test_data_that_is_no_column_file_becomes_one() -> None:
    rows = [["a\tb", "c\\", "d\ne"], []]
    table = pa.table(
        {
            "tokens": pa.array(rows, pa.list_(pa.string())),
            "pos": pa.array([["X", "Y", "Z"], []], pa.list_(pa.string())),
            "tags": pa.array([["O"] * 3, []], pa.list_(pa.string())),
            "notes": pa.array([["two", "notes"], []], pa.list_(pa.string())),
            "origin": ["x:1", "x:2"],
        }
    )
    texts, separator = token_texts(SimpleNamespace(), table)  # type: ignore[arg-type]
    assert texts.to_pylist() == [["a\\tb\tX", "c\\\tY", "d\\ne\tZ"], []]
    assert separator == "\t"


@pytest.mark.parametrize("size", [1, 3, 50])
def test_predictions_are_in_the_splits_order_however_rows_are_batched(size: int) -> None:
    rng = np.random.default_rng(size)
    split = tagged([rng.integers(0, 4, length).tolist() for length in rng.integers(0, 6, 20)])
    assert not isinstance(split.target, torch.Tensor)
    wanted = torch.randn(split.rows.n_tokens, 4, generator=torch.Generator().manual_seed(1))
    batches = [split.select(rows) for rows in np.array_split(rng.permutation(20), -(-20 // size))]

    class Given(torch.nn.Module):
        """A model with fixed scores for each token."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.head = tag().head(EncoderOf(1), VOCABS, torch.nn.Identity())

        def forward(self, batch: Any, state: Any) -> tuple[torch.Tensor, Any]:
            places = [np.arange(*split.rows.host_offsets[row : row + 2]) for row in batch.index]
            return wanted[np.concatenate(places).astype(int)], state

    actual = predict(Given(), batches, bf16=False)  # type: ignore[arg-type]
    np.testing.assert_array_equal(actual.ids, wanted.argmax(1).numpy())
    np.testing.assert_allclose(actual.probability, wanted.softmax(1).max(1).values.numpy(), rtol=1e-6)


def test_calibration_of_labels_and_tags() -> None:
    predictions = Predictions(np.array([0, 1, 1]), np.array([0.95, 0.95, 0.55], dtype=np.float32))
    tables = LabelInspector(("a", "b")).tables(predictions, labelled([0, 1, 0]))
    assert [(item["count"], item["accuracy"]) for item in tables["calibration"]["bins"]] == [(1, 0.0), (2, 100.0)]
    tags = TagInspector(OwnTags(("O", "B-A", "I-A"), None), "IOB2").tables(predictions, tagged([[0, 1], [0]]))
    assert tags["calibration"] == tables["calibration"]
    assert [(item["count"], item["accuracy"]) for item in tags["calibration_in_spans"]["bins"]] == [
        (1, 0.0),
        (1, 100.0),
    ]


def listing(gold: list[tuple[int, int, int]], predicted: list[tuple[int, int, int]], rows: list[list[str]]) -> str:
    def arrays(result: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        starts, ends, types = (np.array([item[place] for item in result], dtype=np.int64) for place in range(3))
        return starts, ends, types

    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Listing(Comparison(arrays(gold), arrays(predicted), TYPES), offsets, pa.table({"tokens": rows})).text()


def test_the_listing_by_hand() -> None:
    long = [f"w{number}" for number in range(30)]
    text = listing([(1, 3, 1), (18, 19, 0)], [(1, 2, 1)], [["a", "Ann", "Bo", "c"], [], long])
    assert text == (
        "2 gold spans, 1 predicted, 0 right\n\n"
        "     precision     recall         F1  predicted       gold"
        "      right   boundary       type       both     missed   spurious\n"
        "LOC       0.00       0.00       0.00          0          1"
        "          0          0          0          0          1          0\n"
        "PER       0.00       0.00       0.00          1          1"
        "          0          1          0          0          0          0\n"
        "a-b       0.00       0.00       0.00          0          0"
        "          0          0          0          0          0          0\n"
        "\n== boundary: 1 (correct type, wrong bounds) ==\n"
        "\nrow 1\n  gold       PER: Ann Bo\n  predicted  PER: Ann\n  text       a «Ann Bo» c\n"
        "\n== type: 0 (correct bounds, wrong type) ==\n"
        "\n== both: 0 (wrong bounds and wrong type, with common tokens) ==\n"
        "\n== missed: 1 (gold span without a matching prediction) ==\n"
        "\nrow 3\n  gold       LOC: w14\n  text       ... "
        "w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12 w13 «w14» w15 w16 w17 w18 w19 w20 w21 w22 w23 w24 w25 w26 ...\n"
        "\n== spurious: 0 (predicted span without a matching gold span) ==\n"
    )


def test_the_listing_is_limited_and_says_so() -> None:
    rows = [["x"]] * (3 * SHOWN + 1)
    text = listing([(number, number + 1, 0) for number in range(len(rows))], [], rows)
    shown = text.count("\nrow ")
    assert SHOWN / 2 < shown <= SHOWN
    assert f"== missed: {len(rows)}, {shown} of them shown (" in text
