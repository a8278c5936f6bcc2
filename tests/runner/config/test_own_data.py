"""`data=FILE` stands for the options of a spelled-out command, in every command that takes options."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from runner.cli import train as command
from runner.common.errors import HydromelError
from runner.config.compose import compose_config, compose_strategies
from runner.config.hashes import config_hash
from runner.config.own_data import _expanded, with_own_data
from tests.helpers.composed import tag_files

Write = Callable[..., None]
TEXT = "".join(f"{number % 2} some words {number}\n" for number in range(20))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes files with one content to the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # restored after the test, since the command sets it
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    _expanded.cache_clear()

    def files(*names: str, content: str = TEXT) -> None:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")

    return files


def test_the_line_has_a_command_of_the_same_run(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("reviews.txt")
    with caplog.at_level(logging.INFO):
        config = compose_config(["data=reviews.txt", "seed=3", "batching=packed"])
    spelled = "task=classify dataset=labelled dataset.train=reviews.txt encoder=conv seed=3 batching=packed"
    assert caplog.messages == [
        f"data=reviews.txt: one text per line, after its label; as: hydromel {spelled}",
    ]
    same = compose_config(spelled.split())
    assert config.resolved | {"sweep": 0} == same.resolved | {"sweep": 0}
    assert config_hash(config.resolved) == config_hash(same.resolved)


@pytest.mark.parametrize(
    "name",
    ["a b.txt", "it's.txt", "[x].txt", "x=1.txt", "{a}.txt", "1", "true", "é#;.txt", "in/a:b.txt", "back\\slash"],
)
def test_names_are_quoted_for_hydra_and_the_shell(write: Write, caplog: pytest.LogCaptureFixture, name: str) -> None:
    write(name)
    with caplog.at_level(logging.INFO):
        config = compose_config([f"data={name}"])
    assert config.dataset["train"] == name
    spelled = shlex.split(caplog.messages[0].partition("; as: hydromel ")[2])
    assert config_hash(compose_config(spelled).resolved) == config_hash(config.resolved)


def test_splits_and_patterns(write: Write) -> None:
    write("train-1.txt", "train-2.txt", "dev.txt", "a,b.txt")
    config = compose_config(["data=train-*.txt,dev.txt"])
    assert [config.dataset[split] for split in ("train", "valid", "test")] == ["train-*.txt", "dev.txt", None]
    assert compose_config(["data=a,b.txt"]).dataset["train"] == "a,b.txt", "there is a file of that name"
    assert compose_config(["data=train-1.txt,dev.txt,train-2.txt"]).dataset["test"] == "train-2.txt"


def test_what_the_command_says_stays(write: Write) -> None:
    write("data/reviews.csv", content="title,body,kind\n" + "one,good long words,x\ntwo,bad long words,y\n" * 6)
    config = compose_config(["data=reviews.csv", "data_dir=data", "dataset.label_column=title", "encoder=bow"])
    assert (config.dataset["text_columns"], config.dataset["label_column"]) == ("body", "title")
    assert config.choices["encoder"] == "bow"
    kind = ["data=data/reviews.csv", "dataset.label_column=kind"]
    assert compose_config(["experiment=unit_bow", *kind]).choices["encoder"] == "bow"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=none.txt"], "data=none.txt: there is no none.txt in the working directory"),
        (["data=a.txt", "dataset.train=b.txt"], "data=a.txt and dataset.train both name files; give one of them"),
        (["data=a.txt", "data=b.txt"], "data=a.txt data=b.txt: give data= once, as data=TRAIN,VALID,TEST"),
        (
            ["data=a.txt", "resume=runs/x"],
            "data=a.txt has no effect with resume=, which continues with the run's own data; leave it out",
        ),
        (["data=a.txt", "task=tag"], "a.txt: one text per line, after its label; task=tag needs tags"),
        (["data=a.txt", "dataset=stdlib_words"], "dataset=stdlib_words and data=a.txt: leave it out, or give one of"),
        (["data=a.txt,a.txt,a.txt,a.txt"], "data=a.txt,a.txt,a.txt,a.txt: give one to three files, TRAIN,VALID,TEST"),
        (["data="], "data=: give one to three files, TRAIN,VALID,TEST"),
    ],
)
def test_contradictions_are_one_line(
    write: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write("a.txt", "b.txt")
    with pytest.raises(HydromelError) as caught:
        compose_config(arguments)
    assert str(caught.value).startswith(message)
    monkeypatch.setattr(sys, "argv", ["hydromel", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == 1
    assert capfd.readouterr().err == f"error: {caught.value}\n"


def test_a_printed_config_is_nothing_else(
    write: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a.txt")
    monkeypatch.setattr(sys, "argv", ["hydromel", "--cfg", "job", "data=a.txt"])
    with pytest.raises(SystemExit):
        command.main()
    assert yaml.safe_load(capfd.readouterr().out)["dataset"]["train"] == "a.txt"


def test_without_data_nothing_changes() -> None:
    assert with_own_data(["seed=1", "data=null"]) == ["seed=1"]


def test_several_strategies_tell_once(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    write("a.txt")
    with caplog.at_level(logging.INFO):
        configs, _ = compose_strategies(["data=a.txt", "batching=packed,padmask"], None)
    assert [config.choices["dataset"] for config in configs] == ["labelled"] * 2
    assert len([message for message in caplog.messages if message.startswith("data=")]) == 1


def test_a_column_file_to_its_first_figure(
    write: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """In an empty folder."""
    write("none")
    tag_files(tmp_path, rows=20)
    small = ["tracker=none", "run_plots=null", "cache_dir=null", "train.epochs=1", "encoder.filters=4", "threads=1"]
    monkeypatch.setattr(sys, "argv", ["hydromel", "data=train.conll", *small, "hydra.run.dir=run"])
    with pytest.raises(SystemExit) as exit_:
        command.main()
    assert exit_.value.code == 0
    output = capfd.readouterr()
    said = output.out + output.err
    assert "data=train.conll: one token per line in 2 columns (tab)" in said
    assert "test f1 " in said
    from runner.config.saved import saved_run

    first, _, _ = (tmp_path / "run" / "console.log").read_text(encoding="utf-8").partition("\n")
    assert first.startswith("data=train.conll: one token per line in 2 columns (tab)")
    dataset = saved_run(tmp_path / "run", []).dataset
    assert (dataset["name"], dataset["train"], dataset["span_scheme"]) == ("columns_file", "train.conll", "IOB2")
