"""The span scheme of a run: worked out from the training set, recorded, and used again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from runner.cli import predict
from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.components.run_components import Components
from tests.helpers.composed import run, run_config
from tests.helpers.span_tags import tags_of

ROWS = [[(1, None), (1, "PER"), (2, "LOC"), (1, None)], [(3, "LOC"), (1, "LOC")], [(1, None), (2, "PER")]]
SMALL = ("encoder=none", "train.epochs=1", "batching.batch_size=4", "threads=1")


def files(folder: Path, scheme: str, rows: int = 4) -> list[str]:
    """Write a data set of `ROWS` in a scheme; return the overrides that read it."""
    for split in ("train", "valid", "test"):
        lines: list[str] = []
        for row in ROWS * rows:
            lines += [f"w{place}\t{tag}" for place, tag in enumerate(tags_of(row, scheme))] + [""]
        (folder / split).write_text("-DOCSTART-\tO\n\n" + "\n".join(lines), encoding="utf-8")
    names = [f"dataset.{split}={split}" for split in ("train", "valid", "test")]
    return ["task=tag", "dataset=columns_file", f"data_dir={folder}", *names, *SMALL]


def test_a_run_finds_its_scheme_and_records_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        result = run(tmp_path / "run", *files(tmp_path, "BILOU"))
    said = "span_scheme=BILOU, worked out from the tags of train: 20 spans (LOC, PER)"
    assert caplog.messages.count(said) == 1
    saved = yaml.safe_load((tmp_path / "run" / run_schema.RESOLVED).read_text(encoding="utf-8"))
    assert saved["task"]["span_scheme"] == saved["dataset"]["span_scheme"] == "BILOU"
    test = result["metrics"]["test"]
    assert result["quality"]["metric"] == "f1"
    assert test["spans"] == {"scheme": "BILOU", "mode": "strict"}
    assert {row["name"]: row["support"] for row in test["per_type"]} == {"LOC": 12, "PER": 8}
    notes = {"document marks (-DOCSTART-) left out": 1}
    assert result["notes"] == {"train": notes, "valid": notes, "test": notes}
    # A saved run needs no training set to know its scheme.
    (tmp_path / "train").unlink()
    (tmp_path / "text").write_text("w0\nw1\n", encoding="utf-8")
    assert (
        predict.main([str(tmp_path / "run"), "--input", str(tmp_path / "text"), "--output", str(tmp_path / "out")]) == 0
    )
    tags = [line.split("\t")[1] for line in (tmp_path / "out").read_text(encoding="utf-8").splitlines()]
    assert set(tags) <= {"O", *(f"{letter}-{kind}" for letter in "BILU" for kind in ("LOC", "PER"))}


def test_a_resumed_run_has_the_scheme_that_was_found(tmp_path: Path) -> None:
    options = files(tmp_path, "IOE1")
    run(tmp_path / "run", *options)
    (tmp_path / "run" / run_schema.RESULT).unlink()
    result = run(tmp_path / "run", *options, "train.epochs=2")
    assert result["metrics"]["test"]["spans"]["scheme"] == "IOE1"
    assert result["updates"]["epochs"] == 2


@pytest.mark.parametrize(
    ("options", "task", "dataset"),
    [
        ([], "BMES", "BMES"),
        (["dataset.span_scheme=null"], None, None),
        (["task.span_scheme=null"], None, None),  # the task's own value is the data set's, too
        (["task.span_scheme=BMES"], "BMES", "BMES"),
        (["task.train_scheme=IOB1", "task.constraints=decode"], "BMES", "BMES"),
        (["train.metric=f1_strict", "task.quality=f1"], "BMES", "BMES"),
    ],
)
def test_what_the_user_gives_is_not_worked_out(
    tmp_path: Path, options: list[str], task: str | None, dataset: str | None
) -> None:
    config = Components.of(run_config(*files(tmp_path, "BMES", rows=1), "sweep.id=null", *options)).config
    assert (config.task["span_scheme"], config.dataset["span_scheme"]) == (task, dataset)


def test_other_mistakes_are_told_before_data_are_read(tmp_path: Path) -> None:
    options = [*files(tmp_path, "IOB2", rows=1), "sweep.id=null"]
    (tmp_path / "train").unlink()
    with pytest.raises(HydromelError, match="optimizer"):
        Components.of(run_config(*options, "+optimizer.unknown=1"))
    with pytest.raises(HydromelError, match="there is no file"):
        Components.of(run_config(*options))


def test_a_metric_that_the_tags_do_not_have_is_refused(tmp_path: Path) -> None:
    options = [*files(tmp_path, "IOB2", rows=1), "sweep.id=null", "dataset.columns.tags=0"]
    options += ["dataset.columns.tokens=1"]
    with pytest.raises(HydromelError, match=r"^task.quality=f1; with task.span_scheme=null use accuracy or macro_f1$"):
        Components.of(run_config(*options, "task.quality=f1"))


def test_the_advice_for_tags_of_another_scheme_leads_to_all_spans(tmp_path: Path) -> None:
    options = files(tmp_path, "BILOU")
    for strict in ("true", "false"):
        with pytest.raises(
            HydromelError, match=r"all tags of the file are legal in BILOU: set dataset.span_scheme=BILOU$"
        ):
            run(tmp_path / "run", *options, "dataset.span_scheme=IOB2", f"dataset.strict_tags={strict}")
    figures = run(tmp_path / "run", *options, "dataset.span_scheme=BILOU")["metrics"]["test"]
    assert sum(row["support"] for row in figures["per_type"]) == 20


def test_the_reader_allows_the_tags_that_the_task_ignores(tmp_path: Path) -> None:
    options = [*files(tmp_path, "IOB2", rows=1), "sweep.id=null"]
    text = (tmp_path / "train").read_text(encoding="utf-8")
    (tmp_path / "train").write_text(text + "\nw0\tB-PER\nw1\t_\nw2\tI-PER\n", encoding="utf-8")
    ignoring = Components.of(run_config(*options, "task.ignore=[_]"))
    assert ignoring.config.dataset["span_scheme"] == "IOB2"
    assert ignoring.parts.corpus.read()["train"]["tags"][-1].as_py() == ["B-PER", "_", "I-PER"]
    with pytest.raises(
        HydromelError,
        match=r"(leave out those that are|or leave out values that are) not tags with 'task.ignore=\[_\]'",
    ):
        Components.of(run_config(*options))
