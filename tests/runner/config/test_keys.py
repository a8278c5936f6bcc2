"""Keys of mappings that would replace one another: one line, never a lost value."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.common.errors import HydromelError
from runner.compat.hydra import mappings_of
from runner.config.compose import compose_config


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("{true: 2, 1: 3}", r"the keys true and 1 are one key.*\+\+task.label_weights.true=VALUE"),
        ("{1: 2, 1.0: 3}", "the keys 1 and 1.0 are one key"),
        ("{a: 2, b: 1, a: 3}", "the key a is given twice"),
    ],
)
def test_clashing_keys_of_the_command_line_are_refused(mapping: str, message: str) -> None:
    with pytest.raises(HydromelError, match=message):
        compose_config(["task=classify", f"task.label_weights={mapping}"])


def test_keys_given_one_by_one_are_kept_apart() -> None:
    run = compose_config(["task=classify", "++task.label_weights.true=2", "++task.label_weights.1=3"])
    assert run.task["label_weights"] == {"true": 2, "1": 3}


@pytest.mark.parametrize("mapping", ["{true: 2, 1: 3}", '{1: 2, "1": 3}'])
def test_clashing_keys_of_a_file_are_refused_with_its_line(tmp_path: Path, mapping: str) -> None:
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text(f"# @package _global_\ntask:\n  label_weights: {mapping}\n")
    with pytest.raises(HydromelError, match=r"mine.yaml:3: (the keys? .* quote them|the key 1 is given)"):
        compose_config(["experiment=mine", "task=classify"], tmp_path)
    file.write_text('# @package _global_\ntask:\n  label_weights: {"true": 2, "1": 3}\n')
    assert compose_config(["experiment=mine", "task=classify"], tmp_path).task["label_weights"] == {"true": 2, "1": 3}


def test_keys_are_found_in_mappings_within_others() -> None:
    assert mappings_of("a={b: {true: 1}, c: [{d: 2}]}") == [[("b", "b"), ("c", "c")], [("true", True)], [("d", "d")]]
