"""`hydromel-predict`: a run says of new text what it said of test, whatever the batches, and is trusted in nothing."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from runner.cli.predict import main
from runner.common import run_schema
from runner.tracking import mlflow_store
from tests.helpers.composed import label_files, run_as_command, tag_files

SMALL = ("train.epochs=3", "optimizer.lr=0.02", "batching.batch_size=16")
PREDICT = [sys.executable, "-m", "runner.cli.predict"]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learns IOBES of IOB2, words with their characters, and a test set with words that train lacks."""
    folder = tmp_path_factory.mktemp("tagger")
    options = tag_files(folder)
    test = folder / "test.conll"
    test.write_text(test.read_text(encoding="utf-8").replace("Bob", "Bobby") + "\nÄnn\tB-PER\n", encoding="utf-8")
    crf = ("task.head=crf", "task.constraints=decode", "task.train_scheme=IOBES", "encoder=bgru")
    chars = ("features=words_chars", "embedding=word_char", "embedding.parts.words.size=8")
    run_as_command(folder / "run", *options, *crf, *chars, *SMALL, "encoder.hidden=8")
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    run_as_command(
        folder / "run",
        *label_files(folder),
        *SMALL,
        "encoder=conv",
        "encoder.filters=8",
        "max_length=4",
        "truncate=both",
    )
    lines = (folder / "test.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.partition(" ")[2] for line in lines]
    (folder / "lines.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return folder


def predicted(folder: Path, name: str, *arguments: str) -> list[str]:
    """The lines that are written for a file beside the run."""
    output = folder / "out.txt"
    output.unlink(missing_ok=True)
    assert main([f"run={folder / 'run'}", "--input", str(folder / name), "--output", str(output), *arguments]) == 0
    assert not list(folder.glob(".out*"))
    return output.read_text(encoding="utf-8").splitlines()


def test_tags_are_those_that_the_run_gave(tagger: Path) -> None:
    """The run's own file has gold tags behind the columns, and after the last sentence a blank line."""
    expected = (tagger / "run" / "predictions" / "test.conll").read_text(encoding="utf-8").splitlines()
    assert len({line.split("\t")[-1] for line in expected if line}) > 1
    actual = [line.split("\t") for line in predicted(tagger, "test.conll")]
    assert ["\t".join([*fields[:2], *fields[1:]]) if any(fields) else "" for fields in actual] == expected[:-1]
    gold = (tagger / "test.conll").read_text(encoding="utf-8").splitlines()
    assert ["\t".join(fields[:2]) for fields in actual] == gold


def test_labels_are_those_that_the_run_gave(classifier: Path) -> None:
    """The first row of test has no tokens: as a line it stays blank, as an object it is labelled."""
    table = (classifier / "run" / "predictions" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    expected = [line.split("\t")[1] for line in table]
    assert len(set(expected)) == 2
    assert predicted(classifier, "lines.txt") == ["", *expected[1:]]
    texts = (classifier / "lines.txt").read_text(encoding="utf-8").splitlines()
    objects = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (classifier / "objects.jsonl").write_text(objects, encoding="utf-8")
    actual = [
        json.loads(line) for line in predicted(classifier, "objects.jsonl", "--format", "jsonl", "--probabilities")
    ]
    assert [item["label"] for item in actual] == expected
    assert [item["text"] for item in actual] == texts
    scores = [float(line.split("\t")[2]) for line in table]
    assert [item["label_probability"] for item in actual] == pytest.approx(scores, abs=1e-4)


def test_a_table_with_other_columns_is_read_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    label_files(tmp_path)
    for split in ("train", "valid", "test"):
        pairs = [line.partition(" ") for line in (tmp_path / f"{split}.txt").read_text(encoding="utf-8").splitlines()]
        rows = "".join(f'{label},"{text}"\n' for label, _, text in pairs)
        (tmp_path / f"{split}.csv").write_text(f"kind,words\n{rows}", encoding="utf-8")
    files = (f"dataset.{split}={split}.csv" for split in ("train", "valid", "test"))
    columns = ("dataset.text_columns=words", "dataset.label_column=kind", f"data_dir={tmp_path}")
    run_as_command(tmp_path / "run", "task=classify", "dataset=csv", *files, *columns, *SMALL, "encoder=bow")
    table = (tmp_path / "run" / "predictions" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    expected = [line.split("\t")[1] for line in table]
    texts = [text for _, _, text in pairs]
    with (tmp_path / "new.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("words", "note"), *((text, "line\nend") for text in texts)])
    for chunk in ("1", "1000000"):
        rows = list(csv.reader(f"{line}\n" for line in predicted(tmp_path, "new.csv", "--chunk", chunk)))
        assert rows == [["words", "note", "label"], *zip_lists(texts, ["line\nend"] * len(texts), expected)]
    other = predicted(tmp_path, "new.csv", "--columns", "tokens=note", "--to", "jsonl")
    assert json.loads(other[0])["tokens"] == ["line", "end"]
    assert "has no column 'notes'; --columns tokens=note names that of the text" in _line(
        capfd, str(tmp_path / "run"), "--input", str(tmp_path / "new.csv"), "--columns", "tokens=notes"
    )
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    assert [json.loads(line)["label"] for line in predicted(tmp_path, "new.jsonl")] == expected
    note = "new.jsonl: read as --format jsonl, for its name; the run's own format is csv"
    assert note in capfd.readouterr().err.replace("\n", " ")
    (tmp_path / "new.tsv").write_text("\n".join(("id\twords", *(f"1\t{text}" for text in texts))), "utf-8")
    assert [line.split("\t")[2] for line in predicted(tmp_path, "new.tsv")] == ["label", *expected]
    for name, content in (("new.txt", "\n".join(texts)), ("table.txt", (tmp_path / "new.csv").read_text("utf-8"))):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert predicted(tmp_path, "new.txt") == [
        label if text else "" for text, label in zip(texts, expected, strict=True)
    ]
    assert "new.txt: plain lines of text; the first one has no column 'words'" in capfd.readouterr().err
    assert predicted(tmp_path, "table.txt")[0] == "words,note,label"
    for content, message in (
        ("\n".join(texts), "stdin: plain lines of text; the first one has no column 'words'"),
        ("werds,note\nfine,x\n", "has no column 'words'; --columns tokens=werds names"),
    ):
        item = subprocess.run(
            [sys.executable, "-m", "runner.cli.predict", str(tmp_path / "run")],
            input=content,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert message in item.stderr
        assert item.stdout.splitlines() == ([] if item.returncode else predicted(tmp_path, "new.txt"))


def test_the_ending_of_a_name_decides(tagger: Path, classifier: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = (classifier / "lines.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    expected = predicted(classifier, "lines.txt")[1:]
    table = "\n".join(["text", *(f'"{text}"' for text in texts)])
    (classifier / "new.csv").write_text(table, encoding="utf-8")
    (classifier / "new.csv.gz").write_bytes(gzip.compress(table.encode(), mtime=0))
    for name in ("new.csv", "new.csv.gz"):
        capfd.readouterr()
        assert [line.rpartition(",")[2] for line in predicted(classifier, name)] == ["label", *expected]
        assert "read as --format csv, for its name; the run's own format is lines" in capfd.readouterr().err
    assert (
        predicted(classifier, "new.csv", "--format", "lines")[0] in expected
    )  # the header is a text, as was asked for
    (classifier / "named.jsonl").write_text(json.dumps({"said": texts[0]}) + "\n", encoding="utf-8")
    files = [str(classifier / "run"), "--input", str(classifier / "named.jsonl"), "--format", "jsonl"]
    assert "fields: said; --columns tokens=said names that of the text" in _line(capfd, *files).replace("\n", " ")
    (line,) = predicted(classifier, "named.jsonl", "--columns", "tokens=said")
    assert json.loads(line)["label"] == expected[0]
    shutil.copy(tagger / "test.conll", classifier / "new.conll")
    line = _line(capfd, str(classifier / "run"), "--input", str(classifier / "new.conll"))
    assert "--format columns holds one prediction per token" in line
    for name in ("new.parquet", "new.arrow"):
        line = _line(capfd, str(classifier / "run"), "--input", str(classifier / name))
        assert "is not text; write its rows as JSON Lines or CSV" in line
    capfd.readouterr()
    words = [line.split("\t")[0] for line in (tagger / "test.conll").read_text(encoding="utf-8").split("\n")]
    rows = "".join(f"{number}\t{word}{8 * chr(9)}\n" if word else "\n" for number, word in enumerate(words, start=1))
    (tagger / "new.conllu").write_text(rows.replace("\t\t", "\t_\t").replace("\t\t", "\t_\t"), encoding="utf-8")
    tags = [line.rpartition("\t")[2] for line in predicted(tagger, "test.conll")]
    assert "read as" not in capfd.readouterr().err  # the run's own ending
    assert [line.rpartition("\t")[2] for line in predicted(tagger, "new.conllu")][: len(tags)] == tags
    assert "new.conllu: read as --format conllu, for its name" in capfd.readouterr().err.replace("\n", " ")


def zip_lists(*columns: list[str]) -> list[list[str]]:
    return [list(row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_and_passages_change_no_answer(tagger: Path, classifier: Path, dtype: str) -> None:
    for folder, name in ((tagger, "test.conll"), (classifier, "lines.txt")):
        expected = predicted(folder, name, "--dtype", dtype)
        for batch_size, chunk in ((1, 1), (1, 10**6), (7, 300), (1000, 40)):
            sizes = ("--batch-size", str(batch_size), "--chunk", str(chunk))
            assert predicted(folder, name, "--dtype", dtype, *sizes) == expected, sizes


def test_every_kind_of_record_has_the_same_predictions(tagger: Path, classifier: Path) -> None:
    for folder, name, column in ((tagger, "test.conll", "tags"), (classifier, "lines.txt", "label")):
        as_lines = [json.loads(line) for line in predicted(folder, name, "--to", "jsonl", "--probabilities")]
        assert json.loads("\n".join(predicted(folder, name, "--to", "json", "--probabilities"))) == as_lines
        in_csv = list(csv.DictReader(f"{line}\n" for line in predicted(folder, name, "--to", "csv", "--probabilities")))
        assert [row["text"] for row in in_csv] == [" ".join(item["tokens"]) for item in as_lines]
        file = folder / "out.parquet"
        to_parquet = ("--to", "parquet", "--output", str(file), "--chunk", "40", "--probabilities")
        assert main([f"run={folder / 'run'}", "--input", str(folder / name), *to_parquet]) == 0
        table = pq.read_table(file)
        assert table["tokens"].to_pylist() == [item["tokens"] for item in as_lines]
        assert table[column].to_pylist() == [item[column] for item in as_lines]
        for unrounded, item in zip(table[f"{column}_probability"].to_pylist(), as_lines, strict=True):
            assert (
                np.round(np.atleast_1d(unrounded), 4).tolist() == np.atleast_1d(item[f"{column}_probability"]).tolist()
            )


def test_no_rows_have_the_same_columns_as_some(classifier: Path) -> None:
    (classifier / "none.txt").write_text("\n", encoding="utf-8")
    to_csv = ("--to", "csv", "--probabilities", "--chunk", "1")
    assert predicted(classifier, "none.txt", *to_csv) == ["text,label,label_probability"]
    assert predicted(classifier, "none.txt", "--to", "json") == ["[]"]
    file = classifier / "none.parquet"
    arguments = (f"run={classifier / 'run'}", "--input", str(classifier / "none.txt"), "--to", "parquet")
    assert main([*arguments, "--output", str(file)]) == 0
    assert pq.read_table(file).schema.names == ["tokens", "label"]


def test_every_format_gives_the_same_tags(tagger: Path) -> None:
    sentences = [
        [line.split("\t") for line in sentence.splitlines()]
        for sentence in (tagger / "test.conll").read_text(encoding="utf-8").strip().split("\n\n")
    ]
    tokens = [[fields[0] for fields in sentence] for sentence in sentences]
    (tagger / "lines.txt").write_text("\n".join(map(" ".join, tokens)), encoding="utf-8")
    objects = "\n".join(json.dumps({"tokens": sentence}) for sentence in tokens)
    (tagger / "objects.jsonl").write_text(objects, encoding="utf-8")
    swapped = "\n".join("".join(f"{tag} x {token}\n" for token, tag in sentence) for sentence in sentences)
    (tagger / "swapped.conll").write_text(swapped, encoding="utf-8")
    lines = [line.split("\t") for line in predicted(tagger, "lines.txt", "--format", "lines", "--probabilities")]
    expected = [line[0].split() for line in lines]
    actual = [json.loads(line) for line in predicted(tagger, "objects.jsonl", "--format", "jsonl", "--probabilities")]
    assert [item["tags"] for item in actual] == expected
    numbers = [number for line in lines for number in line[1].split()]
    assert [float(number) for number in numbers] == list(chain(*(item["tags_probability"] for item in actual)))
    columns = predicted(tagger, "swapped.conll", "--separator", "space", "--columns", "tokens=-1")
    assert [line.split()[-1] for line in columns if line] == list(chain(*expected))
    assert [line.rpartition(" ")[0] for line in columns] == swapped.splitlines()


def test_it_is_a_filter(tagger: Path) -> None:
    """stdin to stdout, line by line if asked, as much of an endless text as somebody reads, figures on stderr."""
    command = [*PREDICT, str(tagger / "run"), "--format", "lines"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input="Ann saw Rome\n\nx", capture_output=True, text=True, env=environment)
    assert done.returncode == 0
    assert [len(line.split()) for line in done.stdout.split("\n")] == [3, 0, 1, 0]
    assert done.stderr.startswith("2 rows, 4 tokens in ")
    with subprocess.Popen(
        [*command, "--chunk", "1"], stdin=-1, stdout=-1, stderr=-1, text=True, env=environment
    ) as item:
        assert item.stdin is not None
        assert item.stdout is not None
        for length in (2, 1, 3):
            print(*["Ann"] * length, file=item.stdin, flush=True)
            assert len(item.stdout.readline().split()) == length
        item.terminate()
        assert item.wait() == 130
    shell = ["bash", "-c", f"yes Ann saw Rome | {' '.join(command)} --chunk 100 | head -2; echo ${{PIPESTATUS[*]}}"]
    endless = subprocess.run(shell, capture_output=True, text=True, env=environment)
    assert endless.stdout.splitlines()[2] == "141 141 0"
    assert endless.stderr == ""


def test_nothing_is_answered_with_nothing(tagger: Path, classifier: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder in (tagger, classifier):
        (folder / "nothing.txt").write_text("", encoding="utf-8")
        assert predicted(folder, "nothing.txt") == []
        (folder / "blank.txt").write_text("\n \n\n", encoding="utf-8")
        assert predicted(folder, "blank.txt", "--format", "lines", "--probabilities") == ["", "", ""]
        (folder / "empty.jsonl").write_text('{"text": ""}\n' * 3, encoding="utf-8")
        assert len(predicted(folder, "empty.jsonl", "--format", "jsonl")) == 3
    assert "0 rows, 0 tokens" in capfd.readouterr().err


# --- a run from elsewhere


def test_vectors_of_new_words_are_looked_up_where_they_lie_now(tmp_path: Path) -> None:
    """Two words that train lacks, with the vectors of known ones; without the file they could not be told apart."""
    options = tag_files(tmp_path)
    known = {"Ann": "1 0 0", "Bob": "1 .1 0", "Cid": "1 0 .1", "Rome": "0 1 0", "Oslo": "0 1 .1", "saw": "0 0 1"}
    new = {"Dora": "1 .1 .1", "Paris": ".1 1 0"}
    (tmp_path / "v.txt").write_text("".join(f"{w} {v}\n" for w, v in (known | new).items()), encoding="utf-8")
    vectors = ("embedding=vectors", "embedding.path=v.txt", "features.words.extend=true", "encoder=none")
    frozen = ("embedding.rate=0", "train.epochs=20", "optimizer.lr=0.05")
    run_as_command(tmp_path / "run", *options, *vectors, *frozen)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "v.txt").rename(tmp_path / "elsewhere" / "v.txt")
    (tmp_path / "new.txt").write_text("Dora\n\nParis\n\nRome\n", encoding="utf-8")
    moved = ("--data-dir", str(tmp_path / "elsewhere"))
    for chunk in ("1", "1000"):
        lines = predicted(tmp_path, "new.txt", "--format", "lines", "--chunk", chunk, *moved)
        assert lines == ["B-PER", "", "B-LOC", "", "B-LOC"]
    assert main([str(tmp_path / "run"), "--input", str(tmp_path / "new.txt")]) == 1


@pytest.mark.filterwarnings("ignore")  # mlflow's, about its own dependencies
def test_a_run_out_of_mlflow(classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    node = ["tracker=mlflow", f"tracker.uri={uri}"]
    run_as_command(tmp_path / "run", *label_files(tmp_path), *SMALL, "encoder=conv", "encoder.filters=8", *node)
    expected = predicted(tmp_path, str(classifier / "lines.txt"))
    own = json.loads((tmp_path / "run" / run_schema.RUN).read_text(encoding="utf-8"))["run_id"]
    (tmp_path / "run").rename(tmp_path / "gone")
    client = mlflow_store.open_store(uri, 10.0)
    (there,) = client.search_runs([client.get_experiment_by_name("hydromel").experiment_id])
    for run_id in (own, there.info.run_id):
        capfd.readouterr()
        assert main([f"run={run_id}", "--uri", uri, "--input", str(classifier / "lines.txt")]) == 0
        assert capfd.readouterr().out.splitlines() == expected
    client.set_tag(there.info.run_id, "mlflow.note.content", "**packed**\n\nfailed: no space")
    client.set_terminated(there.info.run_id, "FAILED")
    assert main([f"run={own}", "--uri", uri, "--input", str(classifier / "lines.txt")]) == 0
    assert f"warning: run={own}: its best checkpoint so far is used (failed: no space)" in capfd.readouterr().err
    early = client.create_run(there.info.experiment_id).info.run_id
    client.set_terminated(early, "KILLED")
    assert "MLflow has no resolved.yaml of this run (killed); use" in _line(capfd, early, "--uri", uri)
    assert "no such run in MLflow" in _line(capfd, "0" * 32, "--uri", uri)
    assert "no such run" in _line(capfd, "runs/nowhere")
    assert "no.db: there is no such file" in _line(capfd, "0" * 32, "--uri", f"sqlite:///{tmp_path}/no.db")


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("encoder", "os.system"),
        ("encoder", "runner.cli.audit.main"),
        ("features", "runner.experiment.job.run_job"),
        ("embedding", "torch.load"),
        ("dataset", "runner.cli.sync.main"),
    ],
)
def test_a_saved_run_is_not_trusted(
    classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str, target: str
) -> None:
    shutil.copytree(classifier / "run", tmp_path / "run")
    path = tmp_path / "run" / run_schema.RESOLVED
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    evil = {"_target_": target, "arguments": ["--gallery", "--json", str(tmp_path / "evil")]}
    config[key] = {"words": evil} if key == "features" else {**config[key], "nested": [evil]}
    path.write_text(yaml.safe_dump(config | {"plugins": ["os", "torch", "runner"]}), encoding="utf-8")
    line = _line(capfd, str(tmp_path / "run"))
    assert f"_target_={target}: not allowed in a saved run" in line
    assert not (tmp_path / "evil").exists()


def test_ones_own_modules_are_allowed_by_name(
    classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(classifier / "run", tmp_path / "run")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine_of_predict.py").write_text(
        "from runner.encoders.conv import Conv\n\n\nclass Mine(Conv):\n    pass\n", encoding="utf-8"
    )
    path = tmp_path / "run" / run_schema.RESOLVED
    text = path.read_text(encoding="utf-8")
    assert "runner.encoders.conv.Conv" in text
    path.write_text(text.replace("runner.encoders.conv.Conv", "mine_of_predict.Mine"), encoding="utf-8")
    assert "to trust a module of your own, use --plugins" in _line(capfd, str(tmp_path / "run"))
    arguments = ["--input", str(classifier / "lines.txt"), "--plugins", "mine_of_predict"]
    assert main([str(tmp_path / "run"), *arguments]) == 0
    assert capfd.readouterr().out.splitlines() == predicted(classifier, "lines.txt")


# --- one line


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ((run_schema.VOCABS, None), "has no vocabs.json: an earlier version trained this run"),
        ((run_schema.VOCABS, "{"), "vocabs.json is damaged: it is not JSON"),
        ((run_schema.VOCABS, '{"words": {"specials": []}}'), "vocabs.json is damaged: it has no 'words.strings'"),
        ((run_schema.VOCABS, '{"words": {"tokens": []}}'), "vocabs.json: an earlier version trained this run"),
        ((run_schema.VOCABS, "[]"), "vocabs.json is damaged: [] should be an object"),
        ((run_schema.RESOLVED, None), "not a run's folder"),
        ((run_schema.RESOLVED, "a: ["), "resolved.yaml: damaged, not YAML"),
        ((run_schema.RESOLVED, "a: !!python/object/apply:os.system [exit]"), "resolved.yaml:1: the tag tag:yaml.org,"),
        ((run_schema.RESOLVED, "- a"), "resolved.yaml: damaged"),
        ((run_schema.RESOLVED, "task: x"), "resolved.yaml: damaged, it lacks 'task'"),
        ((f"{run_schema.CHECKPOINTS}/{run_schema.BEST}", None), "there is no checkpoint"),
        ((f"{run_schema.CHECKPOINTS}/{run_schema.BEST}", "x"), "not a checkpoint"),
    ],
)
def test_a_damaged_run(
    classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], spoil: tuple[str, str | None], expected: str
) -> None:
    shutil.copytree(classifier / "run", tmp_path / "run")
    path, content = tmp_path / "run" / spoil[0], spoil[1]
    path.unlink()
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert expected in _line(capfd, str(tmp_path / "run"))


def test_a_run_of_another_version(classifier: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(classifier / "run", tmp_path / "run")
    path = tmp_path / "run" / run_schema.RESOLVED
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    del config["task"]["pooling"]
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    line = _line(capfd, str(tmp_path / "run"))
    assert "resolved.yaml does not fit this version (task.pooling is missing" in line
    assert line.endswith("; train the run again\n")


def test_a_language_model_has_no_answers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text("the cat sat on the mat\n" * 9, encoding="utf-8")
    files = (f"dataset.{item}={item}.txt" for item in ("train", "valid", "test"))
    run_as_command(
        tmp_path / "run", "task=lm", "encoder=gru", "dataset=text", f"data_dir={tmp_path}", *files, "train.epochs=1"
    )
    assert "task=lm predicts no labels" in _line(capfd, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "content", "expected"),
    [
        ("", b"a\tO\nb\n", "text:2: 1 tab-separated columns; earlier lines have 2"),
        ("", b"a\tO\n\xff\tO\n", "text:2: byte 1 of the line (0xff) is not utf-8"),
        ("--format jsonl", b'{"tokens": ["a"]}\n{"tokens": 3}\n', "text:2: field 'tokens' is 3"),
        ("--format jsonl", b"{}", "text:1: no field tokens or text"),
        ("--format lines --columns tokens=1", b"", "--columns needs --format columns, csv, tsv or jsonl"),
        (
            "--format jsonl --columns pos=upos",
            b"",
            "--columns pos=...: --format jsonl has tokens and tokens_b, by name",
        ),
        ("--field x", b"", "--field needs --format jsonl"),
        ("--columns pos=1", b"", "also needs the column 'tokens'; give its position with --columns"),
        ("--columns tokens", b"", "'tokens' is not of the form tokens=0,pos=1"),
        ("--batch-size 0", b"", "'0' is not a whole number from 1"),
        ("--encoding utf-16", b"", "--encoding utf-16"),
        ("--inputs x", b"", "see hydromel-predict --help"),
        ("--output nowhere/x", b"", "cannot write nowhere/x"),
        ("--output /dev/full", b"a\tO\n" * 9999, "cannot write /dev/full: No space left on device"),
    ],
)
def test_a_mistake(
    tagger: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: str, content: bytes, expected: str
) -> None:
    text, output = tmp_path / "text", tmp_path / "output"
    text.write_bytes(content)
    output.write_text("earlier\n", encoding="utf-8")
    line = _line(capfd, str(tagger / "run"), "--input", str(text), "--output", str(output), *arguments.split())
    assert expected in line
    assert output.read_text(encoding="utf-8") == "earlier\n"
    assert {path.name for path in tmp_path.iterdir()} == {"text", "output"}


def test_a_file_may_be_replaced_by_its_answers(tagger: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("Ann\n", encoding="utf-8")
    assert main([str(tagger / "run"), "--input", str(text), "--output", str(text), "--chunk", "1"]) == 0
    assert text.read_text(encoding="utf-8").startswith("Ann\t")


def test_labels_have_no_columns(classifier: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "one label per row" in _line(capfd, str(classifier / "run"), "--format", "columns")


def _line(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that fails."""
    capfd.readouterr()
    assert main(arguments) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1, printed.err
    return printed.err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from runner.cli.predict import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'mlflow', 'datasets', 'pyarrow')\n"
        "print([module for module in heavy if module in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "run=RUN" in done.stdout
    assert done.stderr.strip() == "[]"
