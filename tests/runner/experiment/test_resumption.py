"""What may change when a run is resumed, and what is refused because the run would be recorded as what it was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from runner.common import run_schema
from runner.common.errors import HydromelError
from runner.config.schema import RunConfig, TrainSettings
from runner.experiment import preparation, resumption
from runner.experiment import run as run_module
from runner.experiment.resumption import MAY_CHANGE, MUST_STAY
from runner.training import checkpoint as checkpoint_module
from runner.training import loop
from runner.training.checkpoint import Checkpoint, checkpoint_path
from tests.helpers.composed import run, run_config, tag_files
from tests.helpers.interrupted import assert_equal, interrupted
from tests.helpers.metrics import assert_same_metrics

OPTIONS = [
    *("encoder=rnn", "encoder.hidden=4", "embedding.size=4", "device=cpu", "batching.batch_size=8"),
    *("train.epochs=2", "train.checkpoint_every=3"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tag_files(tmp_path_factory.mktemp("data"), rows=40)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, data: list[str]) -> Path:
    """A run that was interrupted before the test."""
    folder = tmp_path_factory.mktemp("runs") / "ended"
    interrupted(run_module, "finish", folder, *data, *OPTIONS)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ended: Path, data: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    shutil.copytree(ended, folder)
    run(folder, *data, *OPTIONS)
    return folder


def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run"


def files(folder: Path) -> dict[str, bytes]:
    names = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def refusal(folder: Path, *overrides: str) -> str:
    """The line that refuses to resume; it leaves all files as they were."""
    before = files(folder)
    with pytest.raises(HydromelError) as caught:
        run(folder, *overrides)
    after = files(folder)
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_option_may_change_or_must_stay() -> None:
    options = {f"train.{name}" for name in TrainSettings.model_fields}
    options |= RunConfig.model_fields.keys() - {"train", *resumption._NOT_COMPARED}
    assert options == MAY_CHANGE.keys() | MUST_STAY.keys()
    assert not MAY_CHANGE.keys() & MUST_STAY.keys()


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("seed=2", "the rows of every update follow from it"),
        ("batching.batch_size=4", "rows would be skipped or read twice"),
        ("batching=packed", "rows would be skipped or read twice"),
        ("train.metric=accuracy", "the best checkpoint so far was chosen by the other figure"),
        ("metric=row_accuracy", "the best checkpoint so far was chosen by the other figure"),
        ("train.clip_norm=null", "made with the other value"),
        ("train.warmup_updates=2", "the speed so far leaves out other updates"),
        ("optimizer.lr=0.5", "made with the other value"),
        ("optimizer=sgd", "made with the other value"),
        ("schedule=cosine", "made with the other value"),
        ("dtype=float64", "the other arithmetic"),
        ("precision=bf16", "the other arithmetic"),
        ("matmul=tf32", "the other arithmetic"),
        ("task.train_scheme=IOBES", "the other model"),
        ("features.words.lowercase=true", "the other model"),
        ("embedding.size=5", "the other model"),
        ("encoder.dropout=0.2", "the other model"),
        ("encoder=conv", "the other model"),
        ("dataset.train=valid.conll", "other data"),
        ("max_length=3", "other data"),
        ("turn=2", "the run's name"),
        ("sweep.id=x", "the run's name"),
    ],
)
def test_what_must_stay(option: str, reason: str, ended: Path, data: list[str]) -> None:
    overrides = [*OPTIONS[2:], "encoder=conv"] if option == "encoder=conv" else [*OPTIONS, option]
    line = refusal(ended, *data, *overrides)
    key = option.partition("=")[0]
    assert f"{ended}: {key}" in line
    assert "a resumed run must keep" in line
    assert reason in line
    assert f"init_from={ended}" in line


@pytest.mark.parametrize(
    "options",
    [
        ["train.epochs=3"],
        ["train.epochs=3", "train.max_updates=20"],
        ["train.patience=7"],
        ["train.checkpoint_every=null"],
        ["train.log_every=1"],
        ["train.eval_batch_size=3"],
        ["train.rehearse=false"],
        ["predictions=false"],
        ["baselines=false"],
        ["device=auto"],
        ["threads=1"],
        ["malloc=return"],
        ["tracker=jsonl", "tracker.path=TMP/runs.jsonl"],
        ["runs_dir=TMP/others"],
        ["cache_dir=TMP/cache"],
    ],
)
def test_what_may_change(options: list[str], ended: Path, data: list[str], tmp_path: Path) -> None:
    folder, whole = copy(ended, tmp_path), tmp_path / "whole"
    options = [option.replace("TMP", str(tmp_path)) for option in options]
    run(folder, *data, *OPTIONS, *options)
    run(whole, *data, *OPTIONS, *options)
    names = [name for name in load_file(checkpoint_path(whole, "last")) if name.startswith(("model.", "state.optim"))]
    one, other = (load_file(checkpoint_path(item, "last")) for item in (whole, folder))
    assert all(one[name].equal(other[name]) for name in names)
    one, other = (json.loads((item / run_schema.RESULT).read_text(encoding="utf-8")) for item in (whole, folder))
    assert one["updates"] == other["updates"]
    if options == ["train.eval_batch_size=3"]:
        assert_same_metrics(one["metrics"], other["metrics"])
    else:
        assert one["metrics"] == other["metrics"]


def test_the_data_may_move(ended: Path, data: list[str], tmp_path: Path) -> None:
    folder = copy(ended, tmp_path)
    source = Path(next(option for option in data if option.startswith("data_dir=")).partition("=")[2])
    shutil.copytree(source, tmp_path / "moved")
    run(folder, *data, *OPTIONS, f"data_dir={tmp_path / 'moved'}")


def test_other_data_are_refused(ended: Path, tmp_path: Path) -> None:
    line = refusal(ended, *tag_files(tmp_path, rows=40, seed=2), *OPTIONS, "train.epochs=3")
    origin = Checkpoint.read(checkpoint_path(ended, "last")).origin
    assert f"{ended}: the data in {tmp_path} have the fingerprint" in line
    assert f"the run was trained on data with the fingerprint {origin.fingerprint[:16]}" in line


def with_origin(folder: Path, change: dict[str, Any]) -> None:
    """Change the origin in the last checkpoint, and its checksum; without a change, remove the checksum."""
    path = checkpoint_path(folder, "last")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    pairs = dict(json.loads(metadata["hydromel"])["__dict__"])
    origin = dict(pairs["origin"]["__dict__"]) | change
    pairs["origin"] = {"__dict__": [[key, value] for key, value in origin.items()]}
    metadata["hydromel"] = json.dumps({"__dict__": [[key, value] for key, value in pairs.items()]})
    metadata["crc32"] = checkpoint_module._checksum(load_file(path), metadata["hydromel"])
    if not change:
        del metadata["crc32"]
    save_file(load_file(path), path, metadata)


def test_another_vocabulary_is_refused(ended: Path, data: list[str], tmp_path: Path) -> None:
    folder = copy(ended, tmp_path)
    vocabs = Checkpoint.read(checkpoint_path(ended, "last")).origin.vocabs
    with_origin(folder, {"vocabs": {"__dict__": [["words", "7 strings with hash 0"], ["target", vocabs["target"]]]}})
    line = refusal(folder, *data, *OPTIONS)
    assert (
        f"the vocabulary of 'words' has {vocabs['words']}, but the run was trained with 7 strings with hash 0" in line
    )


@pytest.mark.parametrize("limits", [[], [["epochs", "two"], ["max_updates", None]]])
def test_limits_of_another_form_are_refused(
    ended: Path, data: list[str], tmp_path: Path, limits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "check_options", lambda *_: None)
    folder = copy(ended, tmp_path)
    with_origin(folder, {"config": {"__dict__": [["train", {"__dict__": limits}]]}})
    assert "last.safetensors: its state does not fit this run (epochs: " in refusal(folder, *data, *OPTIONS)


def test_a_run_does_not_go_on_with_other_plans(ended: Path, data: list[str], tmp_path: Path) -> None:
    folder = copy(ended, tmp_path)
    with_origin(folder, {"plans": 1})
    line = refusal(folder, *data, *OPTIONS, "train.epochs=3")
    assert "another version of Hydromel trained this run, with other updates (plans 1; here 2)" in line


def test_a_checkpoint_of_an_earlier_version_is_refused(ended: Path, data: list[str], tmp_path: Path) -> None:
    folder = copy(ended, tmp_path)
    with_origin(folder, {})
    assert "an earlier version wrote this checkpoint" in refusal(folder, *data, *OPTIONS)


@pytest.mark.parametrize("schedule", ["constant", "plateau", "step"])
def test_a_finished_run_goes_on_as_if_it_had_been_meant_to(schedule: str, data: list[str], tmp_path: Path) -> None:
    options = [*data, *OPTIONS, f"schedule={schedule}", "encoder.dropout=0.3"]
    run(tmp_path / "run", *options)
    first = (tmp_path / "run" / run_schema.RESULT).read_bytes()
    run(tmp_path / "run", *options, "train.epochs=3")
    run(tmp_path / "whole", *options, "train.epochs=3")
    assert_equal(tmp_path / "whole", tmp_path / "run", same_plan=False)
    result = json.loads((tmp_path / "run" / run_schema.RESULT).read_text(encoding="utf-8"))
    made = json.loads(first)["updates"]["count"]
    assert result["changes"] == [{"option": "train.epochs", "updates": made, "before": 2, "after": 3}]
    assert (tmp_path / "run" / run_schema.EARLIER_RESULT).read_bytes() == first


def test_a_finished_run_whose_continuation_is_interrupted(finished: Path, data: list[str], tmp_path: Path) -> None:
    folder = copy(finished, tmp_path)
    interrupted(loop, "train_segment", folder, *data, *OPTIONS, "train.epochs=3", call=2)
    assert not (folder / run_schema.RESULT).exists()
    run(folder, *data, *OPTIONS, "train.epochs=3")
    run(tmp_path / "whole", *data, *OPTIONS, "train.epochs=3")
    assert_equal(tmp_path / "whole", folder, same_plan=False)


def test_a_finished_run_has_nothing_left(finished: Path, data: list[str]) -> None:
    for options in ([], ["train.epochs=1"], ["train.max_updates=3"]):
        line = refusal(finished, *data, *OPTIONS, *options)
        assert "this run is finished after" in line
        assert "raise what ended it (train.epochs=" in line
    assert "seed=4: a resumed run must keep" in refusal(finished, *data, *OPTIONS, "train.epochs=3", "seed=4")


def test_a_run_that_was_stopped_after_its_result_is_completed(finished: Path, data: list[str], tmp_path: Path) -> None:
    folder = copy(finished, tmp_path)
    (folder / run_schema.MODEL_CARD).unlink()
    record = json.loads((folder / run_schema.RUN).read_text())
    (folder / run_schema.RUN).write_text(json.dumps(record | {"status": run_schema.INTERRUPTED}))
    run(folder, *data, *OPTIONS)
    assert (folder / run_schema.MODEL_CARD).exists()
    assert json.loads((folder / run_schema.RUN).read_text())["status"] == run_schema.FINISHED
    assert (folder / run_schema.RESULT).read_bytes() == (finished / run_schema.RESULT).read_bytes()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_over_the_whole_run_fixes_its_length(schedule: str, data: list[str], tmp_path: Path) -> None:
    options = [*data, *OPTIONS, f"schedule={schedule}", "schedule.warmup=2"]
    interrupted(loop, "train_segment", tmp_path / "run", *options, call=3)
    line = refusal(tmp_path / "run", *options, "train.epochs=3")
    assert "cannot change under this schedule, which spans the whole run: the learning rate of update 4 was" in line
    # max_updates at what the epochs come to changes nothing
    n_updates = len(load_updates(options))
    run(tmp_path / "run", *options, f"train.max_updates={2 * n_updates}")


def load_updates(options: list[str]) -> list[Any]:
    from runner.components.run_components import build_strategy
    from tests.helpers.composed import QUIET, data_of

    config = run_config(*QUIET, *options)
    lengths = data_of(config).splits["train"].rows.host_lengths
    return build_strategy(config.batching, []).updates(lengths, config.seed, 0)
