"""Hashes and saved runs know a class by its stable name, wherever its module lies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runner.common import class_names
from runner.common.class_names import registered, stable_name, targets_in, with_stable_names
from runner.common.errors import HydromelError
from runner.config.hashes import comparison_hash, config_hash, job_hash
from runner.config.instantiate import build
from runner.config.saved import locate_classes
from tests.helpers.composed import config

HASHES = (comparison_hash, job_hash, config_hash)
SAVED = Path("run/resolved.yaml")
ROLES = ("task", "dataset", "features", "embedding", "encoder", "batching", "optimizer", "schedule", "tracker")


def with_encoder(target: str, **options: Any) -> dict[str, Any]:
    """The default config with its encoder's class, and some of its options, replaced."""
    plain = config("encoder=rnn")
    return plain | {"encoder": plain["encoder"] | {"_target_": target} | options}


def moved(node: Any) -> Any:
    """A config in which every class of the project lies in another module."""
    if isinstance(node, list):
        return [moved(item) for item in node]
    if not isinstance(node, dict):
        return node
    elsewhere = {key: moved(item) for key, item in node.items()}
    if "_target_" in node:
        elsewhere["_target_"] = "runner.elsewhere." + node["_target_"].rpartition(".")[2]
    return elsewhere


@pytest.mark.parametrize("hash_of", HASHES)
@pytest.mark.parametrize(
    "overrides",
    [
        ["encoder=rnn", "batching=bucketed"],
        ["task=tag", "embedding=word_char", "features=words_chars", "encoder=transformer"],
        ["task=lm", "task.unit=stream", "batching=stream", "encoder=lstm"],
        ["batching=auto", "optimizer=nt_asgd", "schedule=linear"],
    ],
)
def test_moving_classes_changes_no_hash(hash_of: Any, overrides: list[str]) -> None:
    plain = config(*overrides)
    elsewhere = moved(plain)
    assert set(targets_in(elsewhere)).isdisjoint(targets_in(plain))
    assert hash_of(elsewhere) == hash_of(plain)


@pytest.mark.parametrize("hash_of", HASHES)
def test_other_classes_and_options_have_other_hashes(hash_of: Any) -> None:
    configs = [
        with_encoder("runner.encoders.rnn.Rnn"),
        with_encoder("runner.encoders.conv.Conv"),
        with_encoder("runner.encoders.rnn.Rnn", hidden=7),
        with_encoder("one_plugin.Rnn"),
        with_encoder("another_plugin.Rnn"),
        config("encoder=rnn", "optimizer=sgd"),
    ]
    assert len({hash_of(plain) for plain in configs}) == len(configs)


def test_hashes_stay_as_they_were() -> None:
    """Those of saved runs, reports and folders' names: if this fails, nothing older can be compared or gone on with."""
    plain = {"seed": 1, "encoder": {"_target_": "runner.encoders.rnn.Rnn", "hidden": 4}, "data_dir": "data"}
    assert [hash_of(plain) for hash_of in HASHES] == ["d39e0395a6044d47", "1289635bcfb1450d", "3aac08f7cf9d901c"]


def test_names_leave_everything_else_alone() -> None:
    nodes = {"parts": [{"_target_": "tasks.tag.Tag", "x": "runner.encoders.rnn"}, {"_target_": None}, 3], "y": {"z": 1}}
    named = {"parts": [{"_target_": "Tag", "x": "runner.encoders.rnn"}, {"_target_": None}, 3], "y": {"z": 1}}
    assert with_stable_names(nodes) == named
    assert nodes["parts"][0]["_target_"] == "tasks.tag.Tag"  # type: ignore[index]
    assert stable_name("runners.encoders.Rnn") == "runners.encoders.Rnn"


def test_names_are_distinct_within_each_role() -> None:
    for role, paths in class_names._registered_paths().items():
        (name, count), *_ = [*Counter(map(stable_name, paths)).most_common(1), ("", 1)]
        assert count == 1, f"configs/{role}: {name} names several classes"
    assert all(registered(role) for role in ROLES)


def test_a_renamed_class_keeps_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = config("encoder=rnn")
    after = before | {"encoder": before["encoder"] | {"_target_": "runner.encoders.rnn.Recurrent"}}
    assert comparison_hash(after) != comparison_hash(before)
    monkeypatch.setitem(class_names.RENAMED, "Recurrent", "Rnn")
    monkeypatch.setattr(class_names, "_registered_paths", lambda: {"encoder": ("runner.encoders.rnn.Recurrent",)})
    assert comparison_hash(after) == comparison_hash(before)
    for saved in (before, after):
        assert locate_classes(saved, ["encoder"], SAVED, []) == after


# --- loading


def test_a_saved_config_is_loaded_from_where_its_classes_lie_now() -> None:
    plain = config("embedding=word_char", "features=words_chars", "batching=auto")
    assert locate_classes(moved(plain), plain, SAVED, []) == plain


def test_a_plugin_stays_as_it_is_written() -> None:
    saved = with_encoder("my_plugin.Rnn")
    assert locate_classes(saved, ["encoder"], SAVED, ["my_plugin"]) == saved


@pytest.mark.parametrize(
    ("target", "plugins"),
    [
        ("runner.encoders.rnn.Gone", []),  # no class of that name any more
        ("runner.embeddings.word.WordEmbedding", []),  # registered, for another role
        ("runner.experiment.job.run_job", []),
        ("my_plugin.Rnn", []),
        ("my_plugin.Rnn", ["my"]),
        ("os.system", ["my_plugin"]),
    ],
)
def test_only_what_is_registered_for_a_role_is_loaded(target: str, plugins: list[str]) -> None:
    for nested in (False, True):
        node = {"_target_": target}
        saved = {"encoder": {"_target_": "runner.encoders.rnn.Rnn", "parts": [node]} if nested else node}
        with pytest.raises(HydromelError) as error:
            locate_classes(saved, ["encoder"], SAVED, plugins)
        where = "encoder.parts[0]" if nested else "encoder"
        assert str(error.value).startswith(
            f"run/resolved.yaml: {where}._target_={target}: not allowed in a saved run; "
            "allowed under encoder: runner.encoders.bow.Bow, runner.encoders.conv.Conv, "
            "runner.encoders.identity.Identity, "
        )


def test_a_config_of_before_a_move_is_told_where_its_class_lies_now() -> None:
    with pytest.raises(
        HydromelError, match=r"not allowed under schedule; did you mean 'runner\.training\.schedules\.Step'\?"
    ):
        build({"_target_": "runner.rates.Step", "every_epochs": 1, "gamma": 0.5}, "schedule", {})
    with pytest.raises(HydromelError, match=r"runner\.rates\.Gone: not allowed under schedule"):
        build({"_target_": "runner.rates.Gone"}, "schedule", {})
