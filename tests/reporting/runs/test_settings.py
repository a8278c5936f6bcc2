"""Settings in the headings of groups that have the same title."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reporting.runs.run import Run, read
from reporting.runs.settings import MISSING, SAME_AS_MOST, distinguishing_settings

CHARS = {"_target_": "runner.embeddings.char.CharConv", "filters": 50, "size": 30}
ABLATION: dict[str, dict[str, Any]] = {
    "all": {},
    "crf": {"head": "crf", "constraints": None},
    "iob2": {"scheme": "IOB2"},
    "slow": {"lr": 0.1, "clip": 9, "decay": 0.5},
    "no_chars": {"chars": None},
}
FULL = {"head": "softmax", "constraints": "none", "scheme": "IOBES", "lr": 1.0, "clip": 5, "decay": 0.0}


@pytest.fixture
def described(tmp_path: Path, write_run: Any) -> Any:
    """Return a function from the configs of groups, by name, to the settings in their headings."""

    def tell(configs: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
        runs: dict[tuple[str, ...], Run] = {}
        for name, config in configs.items():
            folder = write_run(tmp_path / name, "packed", 1)
            (folder / "resolved.yaml").write_text(json.dumps(config))
            run = read(folder).run
            assert run is not None
            runs["title", name] = run
        return {key[1]: settings for key, settings in distinguishing_settings(runs).items()}

    return tell


def test_an_ablation_tells_what_each_group_has_of_its_own(described: Any) -> None:
    """Seven settings differ, one of them a component that one group lacks; each heading shows only its own."""
    configs = {
        name: {"task": {**FULL, **{k: v for k, v in change.items() if k != "chars"}}}
        | {"embedding": {"parts": {} if "chars" in change else {"chars": CHARS}}}
        for name, change in ABLATION.items()
    }
    assert described(configs) == {
        "all": {"settings": SAME_AS_MOST},
        "crf": {"task.constraints": "null", "task.head": "crf"},
        "iob2": {"task.scheme": "IOB2"},
        "slow": {"task.clip": "9", "task.decay": "0.5", "task.lr": "0.1"},
        "no_chars": {"embedding.parts.chars": MISSING},
    }


def test_few_differences_are_told_of_every_group(described: Any) -> None:
    assert described({"a": {"lr": 1}, "b": {"lr": 1, "clip": 5}, "c": {"lr": 2}}) == {
        "a": {"clip": MISSING, "lr": "1"},
        "b": {"clip": "5", "lr": "1"},
        "c": {"clip": MISSING, "lr": "2"},
    }


def test_what_may_differ_inside_a_group_sets_none_apart(described: Any) -> None:
    """A group has runs of several strategies, seeds and trackers, so none of these can describe it."""
    of_one_run = {"baselines": True, "sweep": {"id": "x"}, "runs_dir": "x", "run_plots": None, "tracker": {"name": "x"}}
    names = {"batching": "packed", "tracker": "mlflow", "experiment": "x", "encoder": "gru"}
    assert described(
        {"a": {"lr": 1, **of_one_run, "choices": names}, "b": {"lr": 2, "choices": {"encoder": "lstm"}}}
    ) == {
        "a": {"choices.encoder": "gru", "lr": "1"},
        "b": {"choices.encoder": "lstm", "lr": "2"},
    }


def test_options_of_a_part_are_told_only_where_those_that_have_it_differ(described: Any) -> None:
    wide = CHARS | {"filters": 99}
    assert described({"a": {"chars": CHARS}, "b": {"chars": wide}, "c": {}}) == {
        "a": {"chars": "CharConv", "chars.filters": "50"},
        "b": {"chars": "CharConv", "chars.filters": "99"},
        "c": {"chars": MISSING, "chars.filters": MISSING},
    }


def test_equal_configs_are_told_apart_by_hash(described: Any) -> None:
    assert described({"a": {"lr": 1}, "b": {"lr": 1}}) == {"a": {"config": "hash"}, "b": {"config": "hash"}}


def test_a_group_alone_with_its_title_needs_no_settings(described: Any) -> None:
    assert described({"a": {"lr": 1}}) == {"a": {}}
