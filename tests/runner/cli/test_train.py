"""What a user can do wrong is answered in one line, exit code 1, without a traceback; the command starts quickly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from runner.cli import train as command
from runner.common import run_schema
from tests.helpers.composed import config, label_files, tag_files

HYDROMEL = [sys.executable, "-c", "from runner.cli.train import main; main()"]


def said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """The one line on stderr of a command that fails."""
    monkeypatch.chdir(folder)
    quiet = [] if arguments[0].startswith("resume=") else ["tracker=none", "run_plots=null", "cache_dir=null"]
    monkeypatch.setattr(sys, "argv", ["hydromel", *quiet, *arguments])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as exit_:
        command.main()
    error = capfd.readouterr().err
    assert exit_.value.code == 1
    assert "Traceback" not in error
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) == 1, error
    return error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--multi-run seed=1", "flags come before all options; see hydromel train --help"),
        ("seed=1 -m repeat=2 batching=packed", "repeat=2: a sweep takes seed=1,2,3 instead"),  # flags amid options
        ("seed=1,2", "seed=1,2: several values need -m: hydromel -m ... seed=1,2; one value is seed=[1,2], or"),
        ("data_dir=a,b", "or data_dir='\"a,b\"' as text"),
        ("seed=range(1,3)", "seed=range(1,3): several values need -m: hydromel -m ... seed=range(1,3)\n"),
        ("sweep.id=a", "sweep.id=a is for sweeps (-m), searches and repeat=N; this is one run"),
        ("sweep.devices=[0]", "sweep.devices=[0] is for sweeps (-m), searches and repeat=N; this is one run"),
        ("-m seed=1,2 sweep.jobs=0", "sweep.jobs=0: Input should be greater than 0\n"),
        ("-m seed=1,2 sweep.devices=foo", "sweep.devices='foo': Input should be 'auto'"),
        ("runs_dir=/dev/null", "cannot write /dev/null/"),
        ("-m seed=1,2 runs_dir=/dev/null", "Not a directory; runs_dir, or hydra.run.dir, says where runs are written"),
        ("repeat=2 runs_dir=/dev/null", "Not a directory; runs_dir, or hydra.run.dir, says where runs are written"),
        ("encoder=rn", "encoder=rn: unknown; did you mean 'rnn'?"),
        ("encoders=rnn", "encoders"),
        ("encoder.hiden=3", "encoder.hiden: unknown option; did you mean 'hidden'?"),
        ("+encoder.typo=3", "encoder.typo: unknown option"),
        ("+seeed=3", "seeed: unknown option; did you mean 'seed'?"),
        ("train.epoch=3", "train.epoch: unknown option; did you mean 'epochs'?"),
        ("encoder.hidden=abc", "encoder.hidden='abc'"),
        ("encoder.hidden=-3", "encoder.hidden=-3"),
        ("encoder.dropout=1.5", "encoder.dropout=1.5"),
        ("seed=x", "seed='x'"),
        ("device=gpu", "device='gpu'"),
        ("encoder.hidden=[", "encoder.hidden=["),
        ("optimizer.lr=0", "optimizer.lr=0"),
        ("task=tag encoder=bow", "one vector per token"),
        ("task=lm encoder=blstm", "encoder.bidirectional"),
        ("batching=stream", "batching=stream"),
        ("task=lm task.unit=stream", "batching=stream"),
        ("task=lm task.tie_weights=true embedding.size=50", "tie_weights"),
        ("task.pooling=median", "task.pooling='median'"),
        ("train.metric=f2", "train.metric=f2"),
        ("dataset=wnut17 task=tag", "data_dir=FOLDER"),
        ("dataset=wnut17 task=tag data_dir=nowhere", "nowhere"),
        ("dataset=labelled data_dir=.", "dataset.train"),
        ("resume=nowhere", "nowhere: no such run, neither a folder nor the name or id of one"),
        ("encoder._target_=os.system", "not allowed"),
        ("encoder._target_=runner.encoders.rnn.Rn", "did you mean 'runner.encoders.rnn.Rnn'"),
        ("batching.batch_size=0", "batching.batch_size=0"),
        ("dtype=float64 precision=bf16", "precision=bf16"),
        ("features.words.column=tokenz", "tokenz"),
        ("task=tag max_length=5 truncate=tail", "use truncate=head"),
        ("task=lm max_length=5 truncate=both", "use truncate=head"),
        ("truncate=tail", "give max_length=N"),
        ("features=[words,nothing]", "features=nothing: unknown; `hydromel train --help` lists"),
        ("task=tag embedding=word_char features=[words,casing]", "to add it, use features=[casing,words,chars]"),
        ("dataset=columns_file dataset.columns={pos:1}", "a new one is added by +dataset.columns.pos=VALUE"),
        ("truncate=middle", "truncate='middle'"),
        ("task.label_weights={net:2}", "label 'net' is unknown (task.label_weights)"),
        ("task.label_weights=inverse", "task.label_weights='inverse'"),
        ("task.label_smoothing=0.1 task.head=hinge", "use task.label_smoothing=0.0 or task.head=softmax"),
        ("task.hidden=[5] task.scores=given", "task.hidden=[5]"),
        ("task=tag dataset.span_scheme=${x}", "dataset.span_scheme: Interpolation key 'x' not found"),
    ],
)
def test_one_line(
    arguments: str, expected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert expected in said(monkeypatch, capfd, tmp_path, *arguments.split(), "train.max_updates=1")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "empty"),
        (b"Ann\tB-PER\nsaw\tO\tx\n", "train.conll:2"),
        (b"Ann\tB-PER\nsaw\tI-LOC\n", "train.conll:2"),
        (b"Ann\tB-PER\n\xff\xfe\tO\n", "train.conll"),
    ],
    ids=["empty", "columns", "transition", "encoding"],
)
def test_a_bad_file_is_named_with_its_line(
    content: bytes,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    data = tag_files(tmp_path)
    (tmp_path / "train.conll").write_bytes(content)
    assert expected in said(monkeypatch, capfd, tmp_path, *data)


def test_a_label_that_train_lacks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = label_files(tmp_path)
    with (tmp_path / "test.txt").open("a", encoding="utf-8") as file:
        file.write("2 new\n")
    line = said(monkeypatch, capfd, tmp_path, *data, "task.strict=true")
    assert "test.txt:41" in line
    assert "'2'" in line


def test_what_is_refused_leaves_a_run_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tag_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = [*data, "tracker=none", "run_plots=null", "hydra.run.dir=run", "train.epochs=1", "encoder.hidden=4"]
    subprocess.run([*HYDROMEL, *arguments], check=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert "this run is finished after" in said(monkeypatch, capfd, tmp_path, "resume=run")
    (tmp_path / "run" / "result.json").unlink()
    kept = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*") if path.name != run_schema.CONSOLE}
    for arguments, expected in (
        (["encoder.hidden=6"], "encoder.hidden=6: a resumed run must keep encoder.hidden=4"),
        (["encoder=conv"], "encoder._target_='Conv': a resumed run must keep encoder._target_='Rnn'"),
        (["batching.batch_size=8"], "batching.batch_size=8: a resumed run must keep"),
        (["features.words.max_size=1"], "features.words.max_size=1: a resumed run must keep"),
        (["train.epochs=x"], "train.epochs='x'"),
        (["train.epoch=3"], "train.epoch: unknown option"),
        (["+encoder.width=3"], "+encoder.width=3: the run that is resumed has no such option"),
        (["experiment=tagger"], "experiment=tagger: the run that is resumed has no such option"),
        (["tracker.uri=x"], "tracker.uri=x: the run that is resumed has no such option"),  # of the default tracker
        (["hydra.run.dir=other"], "hydra.run.dir has no effect with resume=run"),
    ):
        assert expected in said(monkeypatch, capfd, tmp_path, "resume=run", *arguments)
    assert {path: path.read_bytes() for path in kept} == kept, "a mistake spoilt the run"
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:100])
    assert "last.safetensors" in said(monkeypatch, capfd, tmp_path, "resume=run")
    (tmp_path / "run" / run_schema.RUN).unlink()  # as if the process had died before; then its tracker is not known
    assert "run has no file run.json: the run never started" in said(monkeypatch, capfd, tmp_path, "resume=run")


def test_relative_paths_are_those_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folders = [tmp_path / "first", tmp_path / "elsewhere"]
    for seed, folder in enumerate(folders):
        (folder / "data").mkdir(parents=True)
        tag_files(folder / "data", rows=20, seed=seed)
    data = [option for option in tag_files(tmp_path) if not option.startswith("data_dir")]
    small = ["tracker=none", "run_plots=null", "cache_dir=null", "train.epochs=1", "encoder.hidden=4"]

    def done(folder: Path, *arguments: str) -> object:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["hydromel", *arguments])
        with pytest.raises(SystemExit) as exit_:
            command.main()
        assert Path.cwd() == folder
        return exit_.value.code

    with monkeypatch.context() as patch:
        patch.setattr("runner.experiment.run.finish", interrupted)
        assert done(folders[0], *data, *small, "data_dir=data", "hydra.run.dir=run") == 130
    assert f"continue with: hydromel resume={folders[0] / 'run'}" in capfd.readouterr().err
    shutil.copytree(folders[0] / "run", tmp_path / "copy")
    assert done(folders[1], "resume=../first/run", "runs_dir=others") == 0
    resolved = yaml.safe_load((folders[0] / "run" / run_schema.RESOLVED).read_text(encoding="utf-8"))
    assert (resolved["data_dir"], resolved["runs_dir"]) == ("data", str(folders[1] / "others"))

    shutil.move(folders[0], tmp_path / "moved")  # the run's working directory is gone
    assert done(folders[1], "resume=../copy") == 1
    assert f"the data in {folders[1] / 'data'} have the fingerprint" in capfd.readouterr().err
    record = json.loads((tmp_path / "copy" / run_schema.RUN).read_text(encoding="utf-8"))
    assert done(folders[1], "resume=../copy", "data_dir=../moved/data") == 0
    warned = f"warning: the run was started in {folders[0]}, which does not exist; relative paths start at {folders[1]}"
    told = capfd.readouterr().err
    assert warned in told
    assert "were not written" not in told, "the rows of an equal file elsewhere were taken from the cache"
    assert done(folders[1], "resume=../copy", "tracker=none") == 1
    assert "made by another installation" not in capfd.readouterr().err
    (tmp_path / "copy" / run_schema.RUN).write_text(json.dumps(record | {"seal": "0" * 64}), encoding="utf-8")
    assert done(folders[1], "resume=../copy", "tracker=none") == 0
    warned = "warning: the run was made by another installation; its records go to tracker=none"
    assert warned in capfd.readouterr().err


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "torch sees no GPU" in said(monkeypatch, capfd, tmp_path, *tag_files(tmp_path), "device=cuda")


def test_a_folder_is_one_run_s(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    line = said(monkeypatch, capfd, tmp_path, *tag_files(tmp_path), "hydra.run.dir=run")
    assert "run holds a run; continue it with resume=" in line
    assert not (tmp_path / "run" / "resolved.yaml").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "file" in said(monkeypatch, capfd, tmp_path, *tag_files(tmp_path), "hydra.run.dir=file/run")


def test_a_saved_run_names_no_modules_to_trust(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plain = config(*tag_files(tmp_path), "tracker=none") | {"plugins": ["os"]}
    plain["encoder"] = {"_target_": "os.system", "command": "touch evil"}
    (tmp_path / "run").mkdir()
    resolved = tmp_path / "run" / "resolved.yaml"
    resolved.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert "not allowed" in said(monkeypatch, capfd, tmp_path, "resume=run")
    assert not (tmp_path / "evil").exists()
    resolved.write_text("a: [", encoding="utf-8")
    assert "damaged" in said(monkeypatch, capfd, tmp_path, "resume=run")


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_DATASETS_CACHE": str(tmp_path)}
    done = subprocess.run(
        [*HYDROMEL, "task=tag", "dataset=conll2003", "tracker=none"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "lhoestq/conll2003" in done.stderr


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tag_files(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    from runner.common import files
    from runner.training import checkpoint

    def write(path: Path, content: bytes) -> None:
        monkeypatch.setattr(os, "fsync", full)
        try:
            files.write_bytes(path, content)
        finally:
            monkeypatch.undo()

    monkeypatch.setattr(checkpoint, "write_bytes", write)
    line = said(monkeypatch, capfd, tmp_path, *data, "hydra.run.dir=run")
    assert "No space left on device" in line
    assert not [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_file()], "no half a file"


def test_the_traceback_is_there_for_who_asks(tmp_path: Path) -> None:
    environment = {**os.environ, "HYDRA_FULL_ERROR": "1"}
    done = subprocess.run(
        [*HYDROMEL, "encoder.hidden=-3"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from runner.cli.train import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = ('torch', 'mlflow', 'datasets', 'pyarrow', 'matplotlib')\n"
        "print([module for module in heavy if module in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert "  batching   auto, bucketed" in done.stdout
    assert done.stderr.strip() == "[]"
