"""The protocol of batching strategies: nothing asks for their classes, and a class of a plugin is enough."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runner.advisor.plan_report import plan_strategies
from runner.audit.config_audit import AuditOptions, audit_config
from runner.common.class_names import registered
from runner.common.errors import HydromelError
from runner.components.run_components import build_batching
from runner.config.compose import compose_config
from runner.config.schema import RunConfig
from runner.experiment.run import run_experiment
from runner.interfaces import BatchingStrategy, StrategyChooser, StreamStrategy
from tests.helpers.composed import QUIET, config, tag_files

ROOT = Path(__file__).parents[3]
SMALL = ("task=tag", "encoder=conv", "encoder.filters=4", "embedding.size=6", "train.epochs=1", "baselines=false")
OWN = """# A strategy of one's own.
_target_: tests.helpers.own_strategy.Plain
name: plain
batch_size: 32
"""


def classes() -> set[str]:
    """Return the names of all classes of strategies and plans."""
    return {path.rpartition(".")[2] for path in registered("batching").values()}


def asked_for(path: Path) -> Iterator[str]:
    """Yield the names of the classes that the module asks for, by isinstance or by a match statement."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "type"):
            names = [name for argument in node.args[1:] for name in ast.walk(argument)]
            yield from (name.id for name in names if isinstance(name, ast.Name))
        if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name):
            yield node.cls.id


def test_nothing_outside_the_package_asks_for_a_class_of_a_strategy() -> None:
    assert {"Batching", "Stream", "Auto", "TokenBudget"} <= classes()
    for package in ("runner", "tasks", "reporting"):
        for path in (ROOT / package).rglob("*.py"):
            if path.parent != ROOT / "runner" / "batching":
                assert not classes() & set(asked_for(path)), path


@pytest.mark.parametrize(
    ("name", "protocol"), [("packed", BatchingStrategy), ("stream", StreamStrategy), ("auto", StrategyChooser)]
)
def test_every_strategy_has_a_protocol(name: str, protocol: type) -> None:
    batching = build_batching(config(f"batching={name}")["batching"], [])
    assert [isinstance(batching, item) for item in (BatchingStrategy, StreamStrategy, StrategyChooser)] == [
        name in ("packed", "stream"),
        name == "stream",
        name == "auto",
    ]
    assert isinstance(batching, protocol)


def own(folder: Path, *overrides: str) -> RunConfig:
    """Return the config of a run with the strategy of a plugin, chosen by its YAML file."""
    (folder / "configs" / "batching").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "batching" / "plain.yaml").write_text(OWN, encoding="utf-8")
    options = [*QUIET, *SMALL, *overrides, "batching=plain", "plugins=[tests.helpers.own_strategy]"]
    return compose_config(options, folder / "configs")


def test_a_class_of_a_plugin_trains_as_one_of_the_project_does(tmp_path: Path) -> None:
    data = tag_files(tmp_path)
    mine = run_experiment(own(tmp_path, *data, f"runs_dir={tmp_path}"), tmp_path / "mine", 0.0)
    theirs = run_experiment(
        compose_config([*QUIET, *SMALL, *data, "batching=packed", f"runs_dir={tmp_path}"]),
        tmp_path / "theirs",
        0.0,
    )
    assert mine["batching"] == "plain"
    for figures in ("updates", "tokens", "padding"):
        assert mine[figures] == theirs[figures]
    assert mine["metrics"]["test"]["f1"] == pytest.approx(theirs["metrics"]["test"]["f1"])


def test_a_class_of_a_plugin_is_planned_and_audited(tmp_path: Path) -> None:
    config = own(tmp_path, *tag_files(tmp_path))
    planned = plan_strategies([config], {}, 1, None).planned
    assert [item.name for item in planned] == ["plain"]
    assert planned[0].memory is not None
    options = AuditOptions(rows=8, longest=8, modes=("eval",), arithmetics=(), heat=False)
    report = audit_config([config], {}, options)
    report.raise_if_failed()
    assert set(report.subjects()) == {"plain"}


def test_an_incomplete_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.helpers.own_strategy import Plain

    monkeypatch.delattr(Plain, "padding")
    node = {"_target_": "tests.helpers.own_strategy.Plain", "name": "plain", "batch_size": 8}
    with pytest.raises(HydromelError, match="Plain lacks a method of BatchingStrategy"):
        build_batching(node, ["tests.helpers.own_strategy"])


def test_the_state_of_a_stream_is_carried_so_its_updates_are_whole() -> None:
    stream = build_batching(config("batching=stream")["batching"], [])
    assert isinstance(stream, StreamStrategy)
    assert stream.carries_state
    assert stream.with_micro_batch(None) is stream
    with pytest.raises(ValueError, match="micro_batch=4"):
        stream.with_micro_batch(4)
    other = stream.with_streams(3, None)
    assert (other.batch_size, other.window) == (3, stream.window)
    assert other.evaluation_shapes([], 8).rows.tolist() == np.array([]).tolist()
