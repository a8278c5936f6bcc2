"""A key that the config does not have: the option that is meant is named, wherever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from runner.common.errors import HydromelError
from runner.config.compose import compose_config
from runner.config.groups import names_by_group
from runner.config.suggestions import _OTHER_NAMES, _OUTSIDE, suggestion


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("batch_size=16", "batch_size=16: unknown option; did you mean batching.batch_size=16?"),
        ("+batch_size=16", "batch_size: unknown option; did you mean batching.batch_size=16?"),
        ("train.batch_size=16", "train.batch_size=16: unknown option; did you mean batching.batch_size=16?"),
        ("batchsize=16", "did you mean batching.batch_size=16?"),
        ("model=lstm", "model=lstm: unknown option; did you mean encoder=lstm?"),
        ("model=bert", "did you mean encoder=NAME?"),
        ("model.hidden=3", "did you mean encoder.hidden=3"),
        ("something=lstm", "did you mean encoder=lstm?"),
        ("lr=0.1", "did you mean optimizer.lr=0.1?"),
        ("learning_rate=0.1", "did you mean optimizer.lr?"),
        ("epochs=3", "did you mean train.epochs=3?"),
        ("hidden=64", "did you mean encoder.hidden=64"),
        ("dataset_path=x.csv", "did you mean data=FILE?"),
        ("output_dir=x", "did you mean hydra.run.dir?"),
        ("encoder.hiden=3", "encoder.hiden: unknown option; did you mean 'hidden'? Allowed in encoder: "),
        ("seeed=3", "seeed: unknown option; did you mean 'seed'? Allowed: "),
        ("xyz=1", "xyz: unknown option. Allowed: "),
    ],
)
def test_one_line_names_the_option(override: str, meant: str) -> None:
    with pytest.raises(HydromelError) as error:
        compose_config([override])
    assert meant in str(error.value)


def test_other_names_are_those_of_options_that_exist() -> None:
    config = dict(compose_config(["encoder=rnn"]).resolved)
    words = [word for names in _OTHER_NAMES.values() for word in names.split()]
    assert len(words) == len(set(words))
    for option, names in _OTHER_NAMES.items():
        assert option in (*names_by_group(), *_OUTSIDE) or suggestion(option, "", [], config), option
        for word in names.split():
            assert word not in config, word
            assert option in suggestion(word, "", list(config), config), (word, option)


def test_home_in_any_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "my home"
    monkeypatch.setenv("HOME", str(home))
    config = compose_config(
        ["data_dir=~/d", "cache_dir='~/kept'", "runs_dir=~", "dataset=csv", "dataset.train=[~/a.csv,b.csv]"]
    )
    assert (config.data_dir, config.cache_dir, config.runs_dir) == (f"{home}/d", f"{home}/kept", str(home))
    assert config.dataset["train"] == [f"{home}/a.csv", "b.csv"]


def test_home_in_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    own = ["# @package _global_", "runs_dir: ~/runs", "data_dir: ~/d", "cache_dir: ~/c", "init_from: ~/runs/first"]
    own += ["tracker: {uri: 'sqlite:///~/mlflow.db', artifact_location: ~/a}", "embedding: {path: ~/glove.txt}"]
    own += ["dataset: {train: [~/a.csv, b.csv], delimiter: '~'}", "task: {label_weights: {'~/x': 2.0}}"]
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text("\n".join(own), encoding="utf-8")
    options = ["dataset=csv", "embedding=vectors", "experiment=mine"]
    config = compose_config(options, tmp_path / "configs")
    assert (config.runs_dir, config.data_dir) == (f"{tmp_path}/runs", f"{tmp_path}/d")
    assert (config.cache_dir, config.init_from) == (f"{tmp_path}/c", f"{tmp_path}/runs/first")
    assert config.tracker["uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert (config.tracker["artifact_location"], config.embedding["path"]) == (f"{tmp_path}/a", f"{tmp_path}/glove.txt")
    assert (config.dataset["train"], config.dataset["delimiter"]) == ([f"{tmp_path}/a.csv", "b.csv"], "~")
    assert config.task["label_weights"] == {"~/x": 2.0}
    with initialize_config_module("configs", version_base="1.3"):  # the folder that Hydra makes
        asked = ["runs_dir='~/runs'", "sweep.id=s"]
        folders = compose("train", asked, return_hydra_config=True).hydra
        assert folders.run.dir.startswith(f"{tmp_path}/runs/")
        assert folders.sweep.dir == f"{tmp_path}/runs/s"
    (tmp_path / "configs" / "experiment" / "mine.yaml").write_text("# @package _global_\nruns_dir: '~'\n")
    with pytest.raises(HydromelError, match="runs_dir='~': Input should be a path; the home directory is ~/"):
        compose_config(["experiment=mine"], tmp_path / "configs")
